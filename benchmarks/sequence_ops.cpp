// Times attention over the block cache and the gated delta net; every case is
// checked against the portable form first. Prints the median and the range of
// the runs, and the fraction of what the machine gave in the same run.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include <mlx/ops.h>

#include "support.h"

#include "optiq/base/system.h"
#include "optiq/base/thread_pool.h"
#include "optiq/cache/sequence.h"
#include "optiq/io/array.h"
#include "optiq/kernels/cpu/operations.h"
#include "optiq/kernels/machine.h"
#include "optiq/kernels/mlx/portable.h"

namespace {

namespace mx = mlx::core;
using bench::normal_array;
using bench::time_runs;
using bench::Timing;
using optiq::cache::BlockPool;
using optiq::cache::Sequence;
using optiq::kernels::DeltaNetShape;
using optiq::kernels::KvFormat;
using optiq::kernels::Segment;

/** Ends the program when y is further from the portable result than `most` of
 * its size. */
void verify(
    const char* what,
    const mx::array& y,
    const mx::array& portable,
    double most) {
  const mx::array expected = optiq::io::materialize(portable);
  const std::span<const float> a = optiq::io::floats(y);
  const std::span<const float> b = optiq::io::floats(expected);
  double error = 0;
  double size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  // Written so that NaN fails.
  if (!(std::sqrt(error / size) <= most)) {
    std::fprintf(
        stderr, "%s: relative error %g\n", what, std::sqrt(error / size));
    std::exit(1);
  }
}

mx::array as_stored(const mx::array& x, mx::Dtype dtype) {
  return mx::astype(mx::astype(x, dtype), mx::float32);
}

void bench_prefill(const KvFormat& format, int n_heads, double fma_peak) {
  const int rows = 512;
  const int dim = format.head_dim;
  const mx::array q = normal_array({rows, n_heads, dim}, 1);
  const mx::array k = normal_array({rows, format.n_kv_heads, dim}, 2);
  const mx::array v = normal_array({rows, format.n_kv_heads, dim}, 3);
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  Sequence sequence(
      std::make_shared<BlockPool>(std::size_t{1} << 30), {format});
  sequence.reserve(rows);
  const std::vector<Segment> segments{
      {.first_row = 0, .rows = rows, .start = 0, .blocks = sequence.blocks(0)}};
  const auto run = [&] {
    return optiq::kernels::cpu::append_and_attend(
        q, k, v, segments, format, {.scale = scale});
  };
  verify(
      "prefill",
      run(),
      optiq::kernels::portable::attend(
          q,
          as_stored(k, format.dtype),
          as_stored(v, format.dtype),
          {.scale = scale}),
      0x1p-8); // queries and weights are rounded to bfloat16
  const Timing t = time_runs(21, [&] { run(); });
  // Scores and values, half of the square.
  const double flops = 2.0 * rows * (rows + 1) * dim * n_heads;
  std::printf(
      "prefill 512, %d/%d heads of %d: %.2f ms (%.2f-%.2f), %.0f GFLOP/s, "
      "%.2f of the FMA peak\n",
      n_heads,
      format.n_kv_heads,
      dim,
      1e3 * t.median,
      1e3 * t.fastest,
      1e3 * t.slowest,
      1e-9 * flops / t.median,
      flops / t.median / fma_peak);
}

/** One row at `context`; as many caches in turn as leave the last-level cache
 * behind. */
void bench_decode(
    const KvFormat& format,
    int n_heads,
    int context,
    double bandwidth) {
  const std::size_t bytes =
      static_cast<std::size_t>(context) / 64 * format.block_bytes();
  const int caches = static_cast<int>((std::size_t{200} << 20) / bytes) + 1;
  const std::vector<optiq::cache::LayerFormat> layers(caches, format);
  Sequence sequence(std::make_shared<BlockPool>(std::size_t{1} << 30), layers);
  sequence.reserve(context);
  const int dim = format.head_dim;
  const mx::array q = normal_array({1, n_heads, dim}, 1);
  const mx::array k = normal_array({1, format.n_kv_heads, dim}, 2);
  int layer = 0;
  const auto run = [&] {
    const std::vector<Segment> segments{
        {.first_row = 0,
         .rows = 1,
         .start = context - 1,
         .blocks = sequence.blocks(layer++ % caches)}};
    return optiq::kernels::cpu::append_and_attend(
        q, k, k, segments, format, {.scale = 0.125f});
  };
  const Timing t = time_runs(2 * caches + 1, [&] { run(); });
  std::printf(
      "decode at %d, %d/%d heads of %d: %.1f us (%.1f-%.1f), %.1f GB/s, %.2f "
      "of the read bandwidth\n",
      context,
      n_heads,
      format.n_kv_heads,
      dim,
      1e6 * t.median,
      1e6 * t.fastest,
      1e6 * t.slowest,
      1e-9 * static_cast<double>(bytes) / t.median,
      static_cast<double>(bytes) / t.median / bandwidth);
}

void bench_delta_net(const DeltaNetShape& shape, int rows) {
  const int C = shape.qkv_dim();
  const int Hv = shape.n_value_heads;
  const mx::array qkv = normal_array({rows, C}, 1);
  const mx::array z = normal_array({rows, Hv * shape.value_dim}, 2);
  const mx::array b = normal_array({rows, Hv}, 3);
  const mx::array a = normal_array({rows, Hv}, 4);
  const optiq::kernels::DeltaNetWeights weights{
      .conv = normal_array({C, shape.conv_kernel}, 5),
      .a_log = normal_array({Hv}, 6),
      .dt_bias = normal_array({Hv}, 7),
      .norm = normal_array({shape.value_dim}, 8)};
  Sequence sequence(
      std::make_shared<BlockPool>(std::size_t{1} << 30),
      {optiq::cache::RecurrentFormat{
          .conv_floats = shape.conv_floats(),
          .state_floats = shape.state_floats()}});
  const std::vector<Segment> segments{
      {.first_row = 0, .rows = rows, .blocks = sequence.blocks(0)}};
  const auto run = [&] {
    return optiq::kernels::cpu::gated_delta_net(
        {qkv, z, b, a}, weights, shape, segments);
  };
  verify(
      "delta net",
      run(),
      optiq::kernels::portable::gated_delta_net(
          {qkv, z, b, a},
          weights,
          shape,
          mx::zeros({shape.conv_kernel - 1, C}),
          mx::zeros({Hv, shape.value_dim, shape.key_dim}))
          .y,
      1e-4);
  const Timing t = time_runs(rows == 1 ? 201 : 21, [&] { run(); });
  // Per state element: two products to read, one and a decay to write.
  const double flops = 7.0 * rows * static_cast<double>(shape.state_floats());
  std::printf(
      "delta net, %d heads of %dx%d, %d rows: %.2f us per token "
      "(%.2f-%.2f), %.0f GFLOP/s\n",
      Hv,
      shape.key_dim,
      shape.value_dim,
      rows,
      1e6 * t.median / rows,
      1e6 * t.fastest / rows,
      1e6 * t.slowest / rows,
      1e-9 * flops / t.median);
}

} // namespace

int main() {
  const double bandwidth =
      optiq::kernels::measure_read_bandwidth(std::size_t{256} << 20, 3);
  // One FMA of 16 floats (32 operations) where one dot has 64 multiply-adds.
  const double fma_peak = optiq::kernels::measure_int8_dot_peak(5) / 2;
  std::printf(
      "%s, %s, %d threads, %.1f GB/s, FMA peak %.0f GFLOP/s\n",
      optiq::system_info().cpu.c_str(),
      optiq::kernels::simd_target().c_str(),
      optiq::ThreadPool::shared().size(),
      1e-9 * bandwidth,
      1e-9 * fma_peak);
  const KvFormat smol = optiq::kernels::cpu_device().kv_format(
      {.dtype = mx::bfloat16, .n_kv_heads = 3, .head_dim = 64});
  const KvFormat tiny = optiq::kernels::cpu_device().kv_format(
      {.dtype = mx::bfloat16, .n_kv_heads = 2, .head_dim = 64});
  const KvFormat wide = optiq::kernels::cpu_device().kv_format(
      {.dtype = mx::bfloat16, .n_kv_heads = 4, .head_dim = 256});
  bench_prefill(smol, 9, fma_peak);
  bench_prefill(tiny, 4, fma_peak);
  bench_prefill(wide, 16, fma_peak);
  for (const int context : {512, 4096, 16384}) {
    bench_decode(smol, 9, context, bandwidth);
  }
  bench_decode(wide, 16, 4096, bandwidth);
  for (const int rows : {1, 256}) {
    bench_delta_net({4, 4, 64, 64, 4}, rows);
    bench_delta_net({16, 32, 128, 128, 4}, rows);
  }
  return 0;
}
