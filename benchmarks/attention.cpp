// Times decode attention of every cache format, after checking it against the
// portable form. Roofs are measured beside each figure: the time to read the
// layer's bytes, and, for codes, the time of its multiply-adds as int8 dots:
// one for each of fast's, exact three (affine) or six (turbo). Prints medians
// and ranges, then what turbo's rotations and exact arithmetic cost, and how
// long the last 512 rows of a prefill take. OPTIQ_SIMD forces a target.
//
//   bench_attention [context ...]     default: 1 1024 8000
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include <mlx/ops.h>

#include "support.h"

#include "optiq/base/system.h"
#include "optiq/base/thread_pool.h"
#include "optiq/cache/sequence.h"
#include "optiq/io/array.h"
#include "optiq/kernels/cpu/operations.h"
#include "optiq/kernels/machine.h"
#include "optiq/kernels/mlx/kv_codec.h"
#include "optiq/kernels/mlx/portable.h"

namespace {

namespace mx = mlx::core;
using bench::normal_array;
using bench::time_runs;
using bench::Timing;
using optiq::cache::BlockPool;
using optiq::cache::Sequence;
using optiq::kernels::BlockId;
using optiq::kernels::Compute;
using optiq::kernels::KvFormat;
using optiq::kernels::KvMethod;
using optiq::kernels::KvRotation;
using optiq::kernels::Segment;

// As many layers in turn as leave the last-level cache behind.
constexpr std::size_t kWorkingSet = std::size_t{160} << 20;
constexpr int kMaxLayers = 4000;
// Tokens of the check against the portable form, odd so that spans are partial.
constexpr int kCheckedTokens = 700;

struct Shape {
  const char* name;
  int n_heads;
  int n_kv_heads;
  int head_dim;
};

std::string name_of(const KvFormat& f) {
  if (f.codec.method == KvMethod::Dense) {
    return f.dtype == mx::float32 ? "float32" : "bfloat16";
  }
  char text[64];
  std::snprintf(
      text,
      sizeof text,
      "%s %g/%g%s%s",
      f.codec.method == KvMethod::Affine ? "affine" : "turbo",
      f.codec.key_bits,
      f.codec.value_bits,
      f.codec.rotation == KvRotation::Orthogonal ? " orthogonal" : "",
      f.compute == Compute::Exact ? " exact" : "");
  return text;
}

/** Relative error of a prefill against the portable form; ends the program when
 * it is more than the format's arithmetic explains. */
double check(const Shape& shape, const KvFormat& format) {
  const int n = kCheckedTokens;
  const mx::array q = normal_array({n, shape.n_heads, shape.head_dim}, 1);
  const mx::array k = normal_array({n, shape.n_kv_heads, shape.head_dim}, 2);
  const mx::array v = normal_array({n, shape.n_kv_heads, shape.head_dim}, 3);
  Sequence sequence(
      std::make_shared<BlockPool>(std::size_t{1} << 30), {format});
  sequence.reserve(n);
  const std::vector<Segment> segments{
      {.first_row = 0, .rows = n, .start = 0, .blocks = sequence.blocks(0)}};
  const float scale = 1.f / std::sqrt(static_cast<float>(shape.head_dim));
  const mx::array y = optiq::kernels::cpu::append_and_attend(
      q, k, v, segments, format, {.scale = scale});
  const mx::array expected =
      optiq::io::materialize(optiq::kernels::portable::attend(
          q,
          optiq::kernels::portable::cached_keys(k, format),
          optiq::kernels::portable::cached_values(v, format),
          {.scale = scale}));
  double error = 0;
  double size = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const double a = optiq::io::floats(y)[i];
    const double b = optiq::io::floats(expected)[i];
    error += (a - b) * (a - b);
    size += b * b;
  }
  const double relative = std::sqrt(error / size);
  // bfloat16 queries and weights: 2^-9 of a product. int8 digits: 1e-2 of it. A
  // code on the edge of two centroids may fall either way: 1e-3.
  const bool dense = format.codec.method == KvMethod::Dense;
  const double most = dense              ? 0x1p-8
      : format.compute == Compute::Exact ? 1e-3
                                         : 3e-2;
  // Written so that NaN fails.
  if (!(relative <= most)) {
    std::fprintf(
        stderr, "%s: relative error %g\n", name_of(format).c_str(), relative);
    std::exit(1);
  }
  return relative;
}

/** Layers of one sequence, all with the same past of `context` tokens. */
class Layers {
 public:
  Layers(const KvFormat& format, int context)
      : layer_bytes_(
            (static_cast<std::size_t>(context) + 63) / 64 *
            format.block_bytes()),
        n_(std::clamp(
            static_cast<int>(kWorkingSet / layer_bytes_) + 1,
            1,
            kMaxLayers)),
        pool_(std::make_shared<BlockPool>(std::size_t{1} << 30)),
        sequence_(pool_, std::vector<optiq::cache::LayerFormat>(n_, format)) {
    sequence_.reserve(context);
    const int dim = format.head_dim;
    // Only the cache matters here: one query head per kv head.
    for (int at = 0; at < context; at += 64) {
      const int rows = std::min(64, context - at);
      const auto random = [&](unsigned seed) {
        return normal_array({rows, format.n_kv_heads, dim}, seed + at);
      };
      const BlockId only[] = {sequence_.blocks(0)[at / 64]};
      const std::vector<Segment> segments{
          {.first_row = 0, .rows = rows, .start = 0, .blocks = only}};
      optiq::kernels::cpu::append_and_attend(
          random(1), random(2), random(3), segments, format, {});
      for (int layer = 1; layer < n_; ++layer) {
        pool_->copy(
            sequence_.blocks(layer)[at / 64], only[0], format.block_bytes());
      }
    }
  }

  /** The last rows, over all layers. */
  Timing
  attend(const Shape& shape, const KvFormat& format, int context, int rows) {
    const int dim = shape.head_dim;
    const mx::array q = normal_array({rows, shape.n_heads, dim}, 5);
    const mx::array k = normal_array({rows, shape.n_kv_heads, dim}, 6);
    int layer = 0;
    const auto run = [&] {
      const std::vector<Segment> segments{
          {.first_row = 0,
           .rows = rows,
           .start = context - rows,
           .blocks = sequence_.blocks(layer++ % n_)}};
      optiq::kernels::cpu::append_and_attend(
          q, k, k, segments, format, {.scale = 0.125f});
    };
    return time_runs(rows > 1 ? 11 : std::max(3 * n_, 301), run);
  }

  std::size_t layer_bytes() const {
    return layer_bytes_;
  }

 private:
  std::size_t layer_bytes_;
  int n_;
  std::shared_ptr<BlockPool> pool_;
  Sequence sequence_;
};

/** Dots of int8 for a multiply-add of codes; 0 where there are none. */
double dots_of(const KvFormat& format) {
  if (format.codec.method == KvMethod::Dense) {
    return 0;
  }
  if (format.compute == Compute::Fast) {
    return 1;
  }
  return format.codec.method == KvMethod::Affine ? 3 : 6;
}

/** Prints one line; returns the median in seconds. */
double bench(
    const Shape& shape,
    const KvFormat& format,
    int context,
    double dot_peak) {
  const double error = check(shape, format);
  Layers layers(format, context);
  const double bandwidth =
      optiq::kernels::measure_read_bandwidth(std::size_t{128} << 20, 2);
  const Timing t = layers.attend(shape, format, context, 1);
  const double by_bytes = static_cast<double>(layers.layer_bytes()) / bandwidth;
  const double dots = 2.0 * context * shape.n_heads * shape.head_dim;
  const double by_dots = dots_of(format) * dots / dot_peak;
  const double roof = std::max(by_bytes, by_dots);
  std::printf(
      "  %-22s %8.1f us (%.1f-%.1f)  %7.0f bytes/token  %5.1f of %5.1f GB/s"
      "  roofs: bytes %.1f us, dots %.1f us  %.2f of the roof  error %.1e\n",
      name_of(format).c_str(),
      1e6 * t.median,
      1e6 * t.fastest,
      1e6 * t.slowest,
      static_cast<double>(format.block_bytes()) / 64,
      1e-9 * static_cast<double>(layers.layer_bytes()) / t.median,
      1e-9 * bandwidth,
      1e6 * by_bytes,
      1e6 * by_dots,
      roof / t.median,
      error);
  std::fflush(stdout);
  return t.median;
}

KvFormat format_of(
    const Shape& shape,
    KvMethod method,
    float bits,
    Compute compute = Compute::Fast,
    KvRotation rotation = KvRotation::Hadamard) {
  return optiq::kernels::cpu_device().kv_format(
      {.n_kv_heads = shape.n_kv_heads,
       .head_dim = shape.head_dim,
       .codec =
           {.method = method,
            .key_bits = bits,
            .value_bits = bits,
            .rotation = rotation},
       .compute = compute});
}

/** Prints one line: the last rows of a prefill. */
void bench_prefill(const Shape& shape, const KvFormat& format, int context) {
  constexpr int kRows = 512;
  if (context < kRows) {
    return;
  }
  Layers layers(format, context);
  const Timing t = layers.attend(shape, format, context, kRows);
  const double products =
      2.0 * shape.n_heads * shape.head_dim * kRows * (context - kRows / 2.0);
  std::printf(
      "  %-22s %8.2f ms (%.2f-%.2f) for %d rows, %.0f GMAC/s\n",
      name_of(format).c_str(),
      1e3 * t.median,
      1e3 * t.fastest,
      1e3 * t.slowest,
      kRows,
      1e-9 * products / t.median);
  std::fflush(stdout);
}

void bench_shape(
    const Shape& shape,
    const std::vector<int>& contexts,
    double dot_peak) {
  for (const int context : contexts) {
    std::printf(
        "%s (%d heads, %d kv heads of %d), %d tokens\n",
        shape.name,
        shape.n_heads,
        shape.n_kv_heads,
        shape.head_dim,
        context);
    const auto run = [&](const KvFormat& format) {
      return bench(shape, format, context, dot_peak);
    };
    const double bf16 = run(format_of(shape, KvMethod::Dense, 0));
    double affine = 0;
    for (const float bits : {8.f, 6.f, 5.f, 4.f, 3.f, 2.f}) {
      const double t = run(format_of(shape, KvMethod::Affine, bits));
      affine = bits == 4.f ? t : affine;
    }
    double turbo = 0;
    for (const float bits : {5.f, 4.f, 3.5f, 3.f, 2.5f, 2.f, 1.f}) {
      const double t = run(format_of(shape, KvMethod::Turbo, bits));
      turbo = bits == 4.f ? t : turbo;
    }
    const double orthogonal = run(format_of(
        shape, KvMethod::Turbo, 4, Compute::Fast, KvRotation::Orthogonal));
    const auto exact = [&](KvMethod method, float bits) {
      return run(format_of(shape, method, bits, Compute::Exact));
    };
    exact(KvMethod::Affine, 8);
    const double exact_affine = exact(KvMethod::Affine, 4);
    exact(KvMethod::Affine, 3);
    const double exact_turbo = exact(KvMethod::Turbo, 4);
    std::printf(
        "  bfloat16 takes %.2f x the time of affine 4, turbo 4 takes %.2f x; "
        "per layer and token turbo adds %.2f us (hadamard) or %.2f us "
        "(orthogonal) to affine\n",
        bf16 / affine,
        turbo / affine,
        1e6 * (turbo - affine),
        1e6 * (orthogonal - affine));
    std::printf(
        "  exact takes %.2f x the time of fast (affine 4), %.2f x (turbo 4)\n",
        exact_affine / affine,
        exact_turbo / turbo);
    bench_prefill(shape, format_of(shape, KvMethod::Dense, 0), context);
    for (const Compute compute : {Compute::Fast, Compute::Exact}) {
      for (const KvMethod method : {KvMethod::Affine, KvMethod::Turbo}) {
        bench_prefill(shape, format_of(shape, method, 4, compute), context);
      }
    }
  }
}

} // namespace

int main(int argc, char** argv) {
  const std::vector<int> contexts =
      bench::contexts_of(argc, argv, "bench_attention", {1, 1024, 8000});
  if (const char* target = std::getenv("OPTIQ_SIMD")) {
    optiq::kernels::force_simd_target(target);
  }
  const double dot_peak = optiq::kernels::measure_int8_dot_peak(5);
  std::printf(
      "%s, %s, %d threads, int8 dots %.0f GMAC/s\n",
      optiq::system_info().cpu.c_str(),
      optiq::kernels::simd_target().c_str(),
      optiq::ThreadPool::shared().size(),
      1e-9 * dot_peak);
  bench_shape({"SmolLM2-135M", 9, 3, 64}, contexts, dot_peak);
  return 0;
}
