#include <algorithm>
#include <cstddef>
#include <vector>

#include "optiq/base/thread_pool.h"
#include "optiq/io/array.h"
#include "optiq/kernels/cpu/block_memory.h"
#include "optiq/kernels/cpu/delta_net.h"
#include "optiq/kernels/cpu/delta_net_checks.h"
#include "optiq/kernels/cpu/operations.h"
#include "optiq/kernels/cpu/parallel_by_cost.h"
#include "optiq/kernels/profile.h"
#include "optiq/kernels/segment_checks.h"

namespace optiq::kernels::cpu {
namespace {

// Floats (or multiply-adds of the recurrence) below which waking a thread does
// not pay.
constexpr std::size_t kGrain = 8192;
constexpr std::size_t kMinCost = 1 << 16;

/** S^T [Hv][Dk][Dv], so that it starts on a cache line. */
float* state_of(const Segment& segment) {
  return reinterpret_cast<float*>(address_of(segment.blocks.front()));
}

/** [conv_kernel - 1][qkv_dim], the oldest row first. */
float* conv_state_of(const Segment& segment, const DeltaNetDims& dims) {
  return state_of(segment) + dims.value_heads * dims.key_dim * dims.value_dim;
}

void run_conv(
    const float* qkv,
    const float* weight,
    const DeltaNetDims& dims,
    std::span<const Segment> segments,
    float* conv) {
  const std::size_t channels = dims.channels();
  std::size_t rows = 0;
  for (const Segment& s : segments) {
    rows += s.rows;
  }
  // Whole strips of channels per thread, as many as make a grain.
  const std::size_t strips = (channels + kChannelStrip - 1) / kChannelStrip;
  const std::size_t work = std::max<std::size_t>(1, rows) * kChannelStrip;
  parallel_for(
      strips,
      std::max<std::size_t>(1, kGrain / work),
      [&](std::size_t begin, std::size_t end) {
        for (std::size_t strip = begin; strip < end; ++strip) {
          const std::size_t first = strip * kChannelStrip;
          const std::size_t last = std::min(channels, first + kChannelStrip);
          for (const Segment& s : segments) {
            conv_silu(
                qkv + s.first_row * channels,
                weight,
                dims,
                s.rows,
                first,
                last,
                conv_state_of(s, dims),
                conv + s.first_row * channels);
          }
        }
      });
}

/** Columns [begin, begin + width) of one value head of one segment. */
struct Strip {
  const Segment* segment = nullptr;
  std::size_t head = 0;
  std::size_t begin = 0;
  std::size_t width = 0;
};

void run_recurrence(
    const float* conv,
    const float* dots,
    const Gate* gates,
    const DeltaNetDims& dims,
    std::span<const Segment> segments,
    float* y) {
  std::vector<Strip> strips;
  std::vector<std::size_t> costs;
  for (const Segment& segment : segments) {
    for (std::size_t head = 0; head < dims.value_heads; ++head) {
      for (std::size_t at = 0; at < dims.value_dim; at += kStateStrip) {
        const std::size_t width = std::min(kStateStrip, dims.value_dim - at);
        strips.push_back({&segment, head, at, width});
        costs.push_back(segment.rows * width * dims.key_dim * 4);
      }
    }
  }
  parallel_by_cost(
      costs, kMinCost, [&](std::size_t, std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
          const Strip& strip = strips[i];
          const std::size_t row = strip.segment->first_row;
          delta_strip(
              conv + row * dims.channels(),
              dots + row * dims.key_heads,
              gates + row * dims.value_heads,
              dims,
              strip.segment->rows,
              strip.head,
              strip.begin,
              strip.width,
              state_of(*strip.segment),
              y + row * dims.value_heads * dims.value_dim);
        }
      });
}

} // namespace

mx::array gated_delta_net(
    const DeltaNetInput& input,
    const DeltaNetWeights& weights,
    const DeltaNetShape& shape,
    std::span<const Segment> segments) {
  const char* name = "gated_delta_net";
  const OpTimer timer(name);
  const DeltaNetArrays arrays = check_delta_net(input, weights, shape);
  const DeltaNetDims& dims = arrays.dims;
  const int T = arrays.qkv.shape(0);
  const int Hv = shape.n_value_heads;
  const int width = Hv * shape.value_dim;
  check_state_segments(name, segments, T);

  mx::array conv = io::make_array(arrays.qkv.shape(), mx::float32);
  float* c = io::mutable_floats(conv).data();
  run_conv(
      io::floats(arrays.qkv).data(),
      io::floats(arrays.conv).data(),
      dims,
      segments,
      c);

  std::vector<float> dots(T * dims.key_heads);
  std::vector<Gate> gates(T * dims.value_heads);
  const GateWeights gate_weights{
      .a_log = io::floats(arrays.a_log).data(),
      .dt_bias = io::floats(arrays.dt_bias).data()};
  const std::size_t rows_per_grain =
      std::max<std::size_t>(1, kGrain / dims.channels());
  parallel_for(T, rows_per_grain, [&](std::size_t begin, std::size_t end) {
    prepare_rows(
        io::floats(arrays.b).data() + begin * Hv,
        io::floats(arrays.a).data() + begin * Hv,
        gate_weights,
        dims,
        end - begin,
        c + begin * dims.channels(),
        dots.data() + begin * dims.key_heads,
        gates.data() + begin * Hv);
  });

  mx::array out = io::make_array({T, width}, mx::float32);
  float* y = io::mutable_floats(out).data();
  run_recurrence(c, dots.data(), gates.data(), dims, segments, y);
  parallel_for(T, rows_per_grain, [&](std::size_t begin, std::size_t end) {
    gated_norm(
        io::floats(arrays.z).data() + begin * width,
        io::floats(arrays.norm).data(),
        weights.norm_eps,
        dims,
        end - begin,
        y + begin * width);
  });
  return out;
}

} // namespace optiq::kernels::cpu
