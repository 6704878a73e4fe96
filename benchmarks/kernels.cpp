// Times the matrix products of the CPU kernels against what the machine gives
// in the same run: read bandwidth at few rows, the int8 dot peak at many.
//
//   bench_kernels [--bits B] [--rows M] [--size N] [--threads T]
//                 [--beside TARGET]
//
// Few rows rotate over at least 320 MB of matrices, so that no cache helps.
// With --beside the best target and TARGET take turns, and what counts are the
// fastest of many short runs of each.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "optiq/base/error.h"
#include "optiq/base/thread_pool.h"
#include "optiq/io/array.h"
#include "optiq/kernels/cpu/operations.h"
#include "optiq/kernels/machine.h"
#include "optiq/kernels/quantize.h"

namespace {

namespace mx = mlx::core;
using optiq::kernels::Compute;
using optiq::kernels::Matrix;

constexpr double kSetBytes = 320e6;
constexpr int kSamples = 9;

struct Options {
  int bits = 0; // 0: all; 16: dense bf16
  int rows = 0; // 0: all
  int size = 4096;
  std::string beside; // a SIMD target
};

mx::array matmul(const mx::array& x, const Matrix& w, Compute compute) {
  return optiq::kernels::cpu_device()
      .multiply(
          x,
          {.projections = {{.weight = &w, .updates = {}}}, .compute = compute})
      .front();
}

mx::array normal_array(int rows, int cols, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  mx::array x = optiq::io::make_array({rows, cols}, mx::float32);
  for (float& v : optiq::io::mutable_floats(x)) {
    v = normal(random);
  }
  return x;
}

Matrix make_matrix(const mx::array& dense, int bits) {
  if (bits == 16) {
    mx::array w = mx::astype(dense, mx::bfloat16);
    mx::eval(w);
    return optiq::kernels::cpu_device().dense(w);
  }
  mx::array half = mx::astype(dense, mx::bfloat16);
  mx::eval(half);
  const auto q = optiq::kernels::quantize_affine(half, bits, 64);
  return optiq::kernels::cpu_device().quantized(
      q.weight, q.scales, q.biases, bits, 64);
}

/** Relative rms error of the last row against double sums over the dequantized
 * weights. */
double error_of(const mx::array& x, const Matrix& w, Compute compute) {
  const mx::array y = matmul(x, w, compute);
  const int row = x.shape(0) - 1;
  const float* xs = x.data<float>() + std::size_t{1} * row * w.in_features();
  const float* ys = y.data<float>() + std::size_t{1} * row * w.out_features();
  double error = 0;
  double norm = 0;
  for (std::int32_t n = 0; n < w.out_features(); n += 61) {
    const mx::array weights = optiq::kernels::cpu_device().embed({&n, 1}, w);
    double sum = 0;
    for (int k = 0; k < w.in_features(); ++k) {
      sum += static_cast<double>(weights.data<float>()[k]) * xs[k];
    }
    error += (ys[n] - sum) * (ys[n] - sum);
    norm += sum * sum;
  }
  return std::sqrt(error / norm);
}

struct Timing {
  double median;
  double spread; // (third quartile - first) / median
};

/** Seconds of one product, over passes through the whole set. */
Timing time_products(
    const mx::array& x,
    const std::vector<Matrix>& set,
    Compute compute) {
  std::vector<double> seconds;
  for (int i = 0; i <= kSamples; ++i) {
    const auto start = std::chrono::steady_clock::now();
    for (const Matrix& w : set) {
      matmul(x, w, compute);
    }
    const std::chrono::duration<double> took =
        std::chrono::steady_clock::now() - start;
    if (i > 0) { // the first warms up
      seconds.push_back(took.count() / static_cast<double>(set.size()));
    }
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[kSamples / 2];
  return {median, (seconds[3 * kSamples / 4] - seconds[kSamples / 4]) / median};
}

constexpr int kTurns = 200;

/** How many times as fast as on `target` the machine's best is. */
void bench_beside(
    const std::vector<Matrix>& set,
    int bits,
    int rows,
    Compute compute,
    const std::string& target) {
  // By its name: to find the best again costs more than a small product.
  const std::string targets[] = {
      optiq::kernels::simd_targets().front(), target};
  const mx::array x =
      normal_array(rows, set.front().in_features(), 1000 + rows);
  double best[2] = {1e9, 1e9};
  for (int turn = 0; turn < kTurns; ++turn) {
    for (int i = 0; i < 2; ++i) {
      optiq::kernels::force_simd_target(targets[i]);
      const Matrix& w = set[rows > 8 ? 0 : (2 * turn + i) % set.size()];
      const auto start = std::chrono::steady_clock::now();
      matmul(x, w, compute);
      const std::chrono::duration<double> took =
          std::chrono::steady_clock::now() - start;
      best[i] = std::min(best[i], took.count());
    }
  }
  optiq::kernels::force_simd_target("");
  std::printf(
      "%4d %5s %5d %10.1f %10.1f %6.2f\n",
      bits,
      bits == 16                     ? "f32"
          : compute == Compute::Int8 ? "int8"
                                     : "exact",
      rows,
      best[0] * 1e6,
      best[1] * 1e6,
      best[1] / best[0]);
  std::fflush(stdout);
}

struct Machine {
  double bandwidth; // bytes per second
  double dots; // multiply-adds per second
};

Machine measure_machine() {
  return {
      optiq::kernels::measure_read_bandwidth(
          static_cast<std::size_t>(kSetBytes), 5),
      optiq::kernels::measure_int8_dot_peak(5)};
}

void bench_rows(
    const std::vector<Matrix>& set,
    int bits,
    int rows,
    Compute compute) {
  const Matrix& w = set.front();
  const mx::array x = normal_array(rows, w.in_features(), 1000 + rows);
  const double error = error_of(x, w, compute);
  const double allowed = bits == 16 ? 1e-5
      : compute == Compute::Int8    ? 1.2e-2
                                    : 1e-4;
  if (!(error < allowed)) {
    optiq::fail(
        optiq::ErrorKind::Internal,
        "[bench_kernels] {} bits, {} rows: found error {}, expected below {}.",
        bits,
        rows,
        error,
        allowed);
  }
  const bool many = rows > 8;
  const std::vector<Matrix> one{w};
  const Machine machine = measure_machine();
  const Timing t = time_products(x, many ? one : set, compute);
  const double digits = compute == Compute::Exact && bits != 16 ? 2 : 1;
  const double products =
      static_cast<double>(rows) * w.in_features() * w.out_features();
  // The float units do a quarter of the int8 dot's multiply-adds.
  const double peak = bits == 16 ? machine.dots / 4 : machine.dots;
  std::printf(
      "%4d %5s %5d %10.1f %6.1f%% %9.1f %9.2f %9.1f %9.2f  %.1e\n",
      bits,
      bits == 16                     ? "f32"
          : compute == Compute::Int8 ? "int8"
                                     : "exact",
      rows,
      t.median * 1e6,
      t.spread * 100,
      static_cast<double>(w.nbytes()) / t.median / 1e9,
      static_cast<double>(w.nbytes()) / t.median / machine.bandwidth,
      products * digits / t.median / 1e9,
      products * digits / t.median / peak,
      error);
  std::fflush(stdout);
}

void bench(const Options& options) {
  const Machine machine = measure_machine();
  std::printf(
      "%s, %d threads, %d x %d, groups of 64, read %.1f GB/s, int8 dots %.0f "
      "GMAC/s\n",
      optiq::kernels::simd_target().c_str(),
      optiq::ThreadPool::shared().size(),
      options.size,
      options.size,
      machine.bandwidth / 1e9,
      machine.dots / 1e9);
  if (options.beside.empty()) {
    std::printf(
        "bits  mode  rows  median us spread      GB/s  of read    GMAC/s  of "
        "peak  error\n");
  } else {
    std::printf(
        "bits  mode  rows    best us  %9s  times as fast\n",
        options.beside.c_str());
  }
  const mx::array dense = normal_array(options.size, options.size, 1);
  for (int bits : {2, 3, 4, 5, 6, 8, 16}) {
    if (options.bits != 0 && options.bits != bits) {
      continue;
    }
    std::vector<Matrix> set{make_matrix(dense, bits)};
    while (static_cast<double>(set.size() * set.front().nbytes()) < kSetBytes) {
      set.push_back(make_matrix(dense, bits));
    }
    for (int rows : {1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 64, 128, 512}) {
      if (options.rows != 0 && options.rows != rows) {
        continue;
      }
      for (const Compute compute : {Compute::Int8, Compute::Exact}) {
        if (bits == 16 && compute == Compute::Exact) {
          continue; // there is one arithmetic
        }
        if (options.beside.empty()) {
          bench_rows(set, bits, rows, compute);
        } else {
          bench_beside(set, bits, rows, compute, options.beside);
        }
      }
    }
  }
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    const int value = std::atoi(argv[i + 1]);
    if (name == "--bits") {
      options.bits = value;
    } else if (name == "--rows") {
      options.rows = value;
    } else if (name == "--size") {
      options.size = value;
    } else if (name == "--beside") {
      options.beside = argv[i + 1];
    } else if (name == "--threads") {
      optiq::ThreadPool::shared().resize(value);
    } else {
      optiq::fail(
          optiq::ErrorKind::InvalidInput,
          "[bench_kernels] found {}, expected --bits, --rows, --size, "
          "--threads or --beside.",
          name);
    }
  }
  return options;
}

} // namespace

int main(int argc, char** argv) {
  try {
    bench(parse(argc, argv));
    return 0;
  } catch (const optiq::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return optiq::exit_code(error.kind());
  }
}
