#include <algorithm>
#include <cstddef>
#include <vector>

#include <hwy/aligned_allocator.h>

#include "optiq/base/error.h"
#include "optiq/base/thread_pool.h"
#include "optiq/io/array.h"
#include "optiq/kernels/checks_impl.h"
#include "optiq/kernels/cpu/delta_net_checks.h"
#include "optiq/kernels/cpu/delta_net_gradients.h"
#include "optiq/kernels/cpu/gradients.h"
#include "optiq/kernels/profile.h"
#include "optiq/kernels/segment_checks.h"

namespace optiq::kernels::cpu::gradients {
namespace {

constexpr const char* kFunction = "gated_delta_net";

/** One sequence, forward again and then backwards. */
class SequenceBackward {
 public:
  SequenceBackward(const DeltaNetArrays& arrays, const Segment& segment)
      : arrays_(arrays),
        dims_(arrays.dims),
        rows_(segment.rows),
        first_(segment.first_row),
        sums_(rows_ * dims_.channels()),
        conv_(sums_.size()),
        dconv_(sums_.size()),
        gates_(rows_ * dims_.value_heads),
        dgates_(gates_.size()) {}

  void run(
      const float* dy,
      float norm_eps,
      float* dqkv,
      float* dz,
      float* db,
      float* da) {
    prepare();
    std::vector<float> dstate(rows_ * value_width());
    std::copy_n(dy + first_ * value_width(), dstate.size(), dstate.begin());
    {
      const std::vector<float> y = recur();
      parallel_for(rows_, kRowGrain, [&](std::size_t begin, std::size_t end) {
        gated_norm_gradient(
            of(arrays_.z, value_width()) + begin * value_width(),
            io::floats(arrays_.norm).data(),
            norm_eps,
            dims_,
            end - begin,
            y.data() + begin * value_width(),
            dstate.data() + begin * value_width(),
            dz + (first_ + begin) * value_width());
      });
    }
    recur_back(dstate.data());
    unprepare(db, da);
    parallel_for(rows_, kRowGrain, [&](std::size_t begin, std::size_t end) {
      conv_gradient(
          dconv_.data(),
          io::floats(arrays_.conv).data(),
          dims_,
          rows_,
          begin,
          end,
          dqkv + first_ * dims_.channels());
    });
  }

 private:
  static constexpr std::size_t kRowGrain = 16;

  std::size_t value_width() const {
    return dims_.value_heads * dims_.value_dim;
  }
  /** The sequence's rows of an array with so many columns. */
  const float* of(const mx::array& x, std::size_t width) const {
    return io::floats(x).data() + first_ * width;
  }
  GateWeights gate_weights() const {
    return {
        io::floats(arrays_.a_log).data(), io::floats(arrays_.dt_bias).data()};
  }

  /** Conv sums, what the recurrence reads, gates. */
  void prepare() {
    const std::size_t channels = dims_.channels();
    const float* in = of(arrays_.qkv, channels);
    const float* taps = io::floats(arrays_.conv).data();
    parallel_for(rows_, kRowGrain, [&](std::size_t begin, std::size_t end) {
      conv_rows(in, taps, dims_, begin, end, sums_.data());
    });
    std::vector<float> past((dims_.conv_kernel - 1) * channels);
    const std::size_t strips = (channels + kChannelStrip - 1) / kChannelStrip;
    parallel_for(strips, 1, [&](std::size_t begin, std::size_t end) {
      for (std::size_t strip = begin; strip < end; ++strip) {
        conv_silu(
            in,
            taps,
            dims_,
            rows_,
            strip * kChannelStrip,
            std::min(channels, (strip + 1) * kChannelStrip),
            past.data(),
            conv_.data());
      }
    });
    dots_.resize(rows_ * dims_.key_heads);
    const std::size_t heads = dims_.value_heads;
    parallel_for(rows_, kRowGrain, [&](std::size_t begin, std::size_t end) {
      prepare_rows(
          of(arrays_.b, heads) + begin * heads,
          of(arrays_.a, heads) + begin * heads,
          gate_weights(),
          dims_,
          end - begin,
          conv_.data() + begin * channels,
          dots_.data() + begin * dims_.key_heads,
          gates_.data() + begin * heads);
    });
  }

  /** y [rows][Hv * Dv], before norm and gate. */
  std::vector<float> recur() const {
    std::vector<float> y(rows_ * value_width());
    std::vector<float> state(
        dims_.value_heads * dims_.key_dim * dims_.value_dim);
    parallel_for(dims_.value_heads, 1, [&](std::size_t begin, std::size_t end) {
      for (std::size_t head = begin; head < end; ++head) {
        for (std::size_t at = 0; at < dims_.value_dim; at += kStateStrip) {
          delta_strip(
              conv_.data(),
              dots_.data(),
              gates_.data(),
              dims_,
              rows_,
              head,
              at,
              std::min(kStateStrip, dims_.value_dim - at),
              state.data(),
              y.data());
        }
      }
    });
    return y;
  }

  void recur_back(const float* dy) {
    const std::size_t share = rows_ * dims_.key_dim;
    std::vector<float> dq(dims_.value_heads * share);
    std::vector<float> dk(dims_.value_heads * share);
    parallel_for(dims_.value_heads, 1, [&](std::size_t begin, std::size_t end) {
      const auto scratch =
          hwy::AllocateAligned<float>(recurrence_scratch(dims_, rows_));
      for (std::size_t head = begin; head < end; ++head) {
        recurrence_gradient(
            {conv_.data(), gates_.data(), dy, rows_, head},
            dims_,
            {dq.data() + head * share,
             dk.data() + head * share,
             dconv_.data(),
             dgates_.data()},
            scratch.get());
      }
    });
    add_shares(dq, 0);
    add_shares(dk, dims_.key_heads * dims_.key_dim);
  }

  /** Channels from `channel` on of dconv: the shares of the value heads that
   * read a key head, in order. */
  void add_shares(const std::vector<float>& shares, std::size_t channel) {
    const std::size_t group = dims_.value_heads / dims_.key_heads;
    for (std::size_t t = 0; t < rows_; ++t) {
      for (std::size_t h = 0; h < dims_.key_heads; ++h) {
        for (std::size_t i = 0; i < dims_.key_dim; ++i) {
          float sum = 0;
          for (std::size_t g = 0; g < group; ++g) {
            sum += shares[((h * group + g) * rows_ + t) * dims_.key_dim + i];
          }
          dconv_[t * dims_.channels() + channel + h * dims_.key_dim + i] = sum;
        }
      }
    }
  }

  void unprepare(float* db, float* da) {
    const std::size_t heads = dims_.value_heads;
    parallel_for(rows_, kRowGrain, [&](std::size_t begin, std::size_t end) {
      prepare_gradient(
          {.sums = sums_.data() + begin * dims_.channels(),
           .b = of(arrays_.b, heads) + begin * heads,
           .a = of(arrays_.a, heads) + begin * heads,
           .weights = gate_weights(),
           .dgates = dgates_.data() + begin * heads,
           .rows = end - begin},
          dims_,
          dconv_.data() + begin * dims_.channels(),
          db + (first_ + begin) * heads,
          da + (first_ + begin) * heads);
    });
  }

  const DeltaNetArrays& arrays_;
  const DeltaNetDims& dims_;
  std::size_t rows_;
  std::size_t first_;
  std::vector<float> sums_; // [rows][channels], before silu
  std::vector<float> conv_; // [rows][channels], q and k normalized
  std::vector<float> dconv_; // [rows][channels]
  std::vector<float> dots_; // [rows][key_heads]
  std::vector<Gate> gates_; // [rows][value_heads]
  std::vector<Gate> dgates_; // [rows][value_heads]
};

} // namespace

DeltaNetInput gated_delta_net(
    const mx::array& dy,
    const DeltaNetInput& input,
    const DeltaNetWeights& weights,
    const DeltaNetShape& shape,
    std::span<const Segment> segments) {
  const OpTimer timer("gated_delta_net_gradient");
  const DeltaNetArrays arrays = check_delta_net(input, weights, shape);
  check_whole_sequences(kFunction, segments, arrays.qkv.shape(0));
  const mx::array from = require_floats(kFunction, "dy", dy, arrays.z.shape());
  DeltaNetInput to{
      io::make_array(arrays.qkv.shape(), mx::float32),
      io::make_array(arrays.z.shape(), mx::float32),
      io::make_array(arrays.b.shape(), mx::float32),
      io::make_array(arrays.a.shape(), mx::float32)};
  for (const Segment& segment : segments) {
    if (segment.rows > 0) {
      SequenceBackward(arrays, segment)
          .run(
              io::floats(from).data(),
              weights.norm_eps,
              io::mutable_floats(to.qkv).data(),
              io::mutable_floats(to.z).data(),
              io::mutable_floats(to.b).data(),
              io::mutable_floats(to.a).data());
    }
  }
  return to;
}

} // namespace optiq::kernels::cpu::gradients
