#include "optiq/kernels/turbo.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>

#include "optiq/base/error.h"
#include "optiq/base/thread_pool.h"
#include "optiq/io/array.h"
#include "optiq/kernels/cpu/kv_append.h"

namespace optiq::kernels {
namespace {

constexpr int kMaxTurboBits = 5;

double density(double x) {
  return std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi);
}

/** Probability of x < t. */
double below(double t) {
  return std::erfc(-t / std::numbers::sqrt2) / 2;
}

/**
 * Lloyd's iteration for N(0, 1): edges halve the way between centroids,
 * centroids are the means between edges. Run until nothing moves by 1e-12: the
 * moves shrink by a factor of 1 - O(1/n^2), so what is left is far below a
 * float's rounding. Positive half; the rest is its mirror.
 */
std::vector<double> positive_centroids(int n) {
  std::vector<double> c(n);
  for (int i = 0; i < n; ++i) {
    c[i] = 3.0 * (i + 0.5) / n;
  }
  double moved = 1.0;
  while (moved > 1e-12) {
    moved = 0.0;
    double edge = 0.0;
    for (int i = 0; i < n; ++i) {
      const bool last = i + 1 == n;
      const double next = last ? 0.0 : (c[i] + c[i + 1]) / 2;
      const double mass = last ? below(-edge) : below(next) - below(edge);
      const double mean = (density(edge) - (last ? 0.0 : density(next))) / mass;
      moved = std::max(moved, std::abs(mean - c[i]));
      c[i] = mean;
      edge = next;
    }
  }
  return c;
}

cpu::CodeTable make_table(int bits) {
  cpu::CodeTable table{.bits = bits};
  const int half = 1 << (bits - 1);
  const std::vector<double> positive = positive_centroids(half);
  const double step = positive.back() / 127;
  std::vector<double> all(std::size_t{1} << bits);
  for (int i = 0; i < half; ++i) {
    all[half + i] = positive[i];
    all[half - 1 - i] = -positive[i];
  }
  for (int i = 0; i < 2 * half; ++i) {
    table.centroids[i] = static_cast<float>(all[i]);
    auto left = std::lround(all[i] / step * 65536);
    for (int plane = cpu::kExactDigits - 1; plane >= 0; --plane) {
      const long digit = ((left + 128) & 255) - 128;
      table.planes[plane][i] = static_cast<std::uint8_t>(128 + digit);
      left = (left - digit) / 256;
    }
    if (i > 0) {
      table.edges[i - 1] = static_cast<float>((all[i - 1] + all[i]) / 2);
    }
  }
  table.step = static_cast<float>(step);
  return table;
}

/** Uniform in (0, 1), the same on every platform. */
double uniform(std::mt19937_64& random) {
  return (static_cast<double>(random() >> 11) + 0.5) * 0x1p-53;
}

double standard_normal(std::mt19937_64& random) {
  const double radius = std::sqrt(-2 * std::log(uniform(random)));
  return radius * std::cos(2 * std::numbers::pi * uniform(random));
}

/** Orthonormal rows: Gram-Schmidt, twice, of normal rows, so that the matrix is
 * uniformly distributed over the orthogonal ones. */
std::vector<double> random_orthogonal(std::size_t n, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<double> m(n * n);
  for (double& x : m) {
    x = standard_normal(random);
  }
  for (std::size_t i = 0; i < n; ++i) {
    double* row = m.data() + i * n;
    for (std::size_t j = 0; j < 2 * i; ++j) {
      const double* other = m.data() + j % i * n;
      double dot = 0.0;
      for (std::size_t k = 0; k < n; ++k) {
        dot += row[k] * other[k];
      }
      for (std::size_t k = 0; k < n; ++k) {
        row[k] -= dot * other[k];
      }
    }
    double size = 0.0;
    for (std::size_t k = 0; k < n; ++k) {
      size += row[k] * row[k];
    }
    for (std::size_t k = 0; k < n; ++k) {
      row[k] /= std::sqrt(size);
    }
  }
  return m;
}

} // namespace

Rotation::Rotation(KvRotation kind, int dim, std::uint64_t seed) {
  const auto n = static_cast<std::size_t>(dim);
  if (kind == KvRotation::Hadamard) {
    const bool power_of_two = (dim & (dim - 1)) == 0;
    std::mt19937_64 random(seed);
    signs_.resize((power_of_two ? 1 : 2) * n);
    for (float& sign : signs_) {
      sign = (random() >> 63) != 0 ? -1.f : 1.f;
    }
    return;
  }
  const std::vector<double> m = random_orthogonal(n, seed);
  rows_.resize(m.size());
  columns_.resize(m.size());
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      rows_[i * n + j] = static_cast<float>(m[i * n + j]);
      columns_[j * n + i] = rows_[i * n + j];
    }
  }
}

const cpu::CodeTable& code_table(int bits) {
  // Constants of mathematics, made on first use.
  static const std::vector<cpu::CodeTable> tables = [] {
    std::vector<cpu::CodeTable> all;
    for (int b = 1; b <= kMaxTurboBits; ++b) {
      all.push_back(make_table(b));
    }
    return all;
  }();
  return tables[bits - 1];
}

std::vector<float> turbo_centroids(int bits) {
  if (bits < 1 || bits > kMaxTurboBits) {
    fail(
        ErrorKind::Unsupported,
        "[turbo_centroids] found {} bits, expected 1..{}. Choose one of these.",
        bits,
        kMaxTurboBits);
  }
  const auto& centroids = code_table(bits).centroids;
  return {centroids.begin(), centroids.begin() + (1 << bits)};
}

mx::array rotate_vectors(
    const mx::array& x,
    KvRotation kind,
    std::uint64_t seed,
    bool inverse) {
  const int dim = x.ndim() == 0 ? 0 : x.shape(-1);
  if (x.dtype() != mx::float32 || dim <= 0 || dim % 16 != 0 ||
      dim > static_cast<int>(cpu::kMaxHeadDim)) {
    fail(
        ErrorKind::InvalidInput,
        "[rotate_vectors] x: found elements of {} bytes in vectors of {}, "
        "expected float32 vectors of a multiple of 16 up to {}. Pass such "
        "vectors.",
        x.itemsize(),
        dim,
        cpu::kMaxHeadDim);
  }
  const Rotation rotation(kind, dim, seed);
  const mx::array from = io::materialize(x);
  mx::array to = io::make_array(x.shape(), mx::float32);
  const auto n = static_cast<std::size_t>(dim);
  cpu::rotate_rows(
      rotation.view(),
      n,
      inverse,
      io::floats(from).data(),
      x.size() / n,
      io::mutable_floats(to).data());
  return to;
}

} // namespace optiq::kernels
