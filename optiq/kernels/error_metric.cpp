#include "optiq/kernels/error_metric.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>

#include "optiq/base/thread_pool.h"
#include "optiq/kernels/cpu/float_matmul.h"

namespace optiq::kernels {
namespace {

constexpr std::size_t kBlock = 64;
// Rows of a strip of C: strips end at the diagonal, so half of C is left out.
constexpr std::size_t kStrip = 96;

/** Adds A B to C [n, n] on and above the diagonal; every piece gets strips from
 * all over, as the first ones are the longest. */
void add_upper(
    const cpu::LeftFactor& a,
    const cpu::RightFactor& b,
    float* c,
    std::size_t stride,
    std::size_t n,
    std::size_t inner) {
  const std::size_t n_strips = (n + kStrip - 1) / kStrip;
  ThreadPool& pool = ThreadPool::shared();
  const int n_pieces = pool.pieces(n_strips);
  pool.run(n_pieces, [&](int, int piece) {
    for (std::size_t i = piece; i < n_strips; i += n_pieces) {
      const std::size_t first = i * kStrip;
      cpu::FloatProduct strip{
          .a = a,
          .b = b,
          .c = c + first * stride + first,
          .c_stride = stride,
          .rows = std::min(kStrip, n - first),
          .cols = n - first,
          .inner = inner,
          .accumulate = true};
      strip.a.data += first * a.row_stride;
      strip.b.first_column += first;
      cpu::multiply_floats(strip);
    }
  });
}

/** H = (I + F) D (I + F)^T of a symmetric matrix, from its last column to the
 * first, in place: F above the diagonal, D on it. */
class Factorization {
 public:
  Factorization(std::vector<float>& matrix, std::size_t n)
      : matrix_(matrix), n_(n) {
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) {
      sum += at(i, i);
    }
    // Of what rounds: no input is worth nothing.
    least_ = 1e-7 * sum / static_cast<double>(n);
  }

  void run() {
    for (std::size_t end = n_; end > 0;) {
      const std::size_t begin = (end - 1) / kBlock * kBlock;
      factor_diagonal(begin, end);
      solve_rows(begin, end);
      subtract(begin, end);
      end = begin;
    }
  }

 private:
  float& at(std::size_t row, std::size_t column) {
    return matrix_[row * n_ + column];
  }

  void factor_diagonal(std::size_t begin, std::size_t end) {
    const std::size_t size = end - begin;
    for (std::size_t i = 0; i < size; ++i) {
      for (std::size_t j = i; j < size; ++j) {
        diagonal_[i][j] = at(begin + i, begin + j);
      }
    }
    for (std::size_t j = size; j-- > 0;) {
      const double d = std::max(diagonal_[j][j], least_);
      diagonal_[j][j] = d;
      for (std::size_t i = 0; i < j; ++i) {
        const double part = diagonal_[i][j];
        for (std::size_t l = i; l < j; ++l) {
          diagonal_[i][l] -= part * diagonal_[l][j] / d;
        }
        diagonal_[i][j] = part / d;
      }
    }
    for (std::size_t i = 0; i < size; ++i) {
      for (std::size_t j = i; j < size; ++j) {
        at(begin + i, begin + j) = static_cast<float>(diagonal_[i][j]);
      }
    }
  }

  /** Rows above the block: H = F D (I + F_block)^T there. */
  void solve_rows(std::size_t begin, std::size_t end) {
    const std::size_t size = end - begin;
    parallel_for(begin, 16, [&](std::size_t first, std::size_t last) {
      double scaled[kBlock]; // F D of the row
      for (std::size_t row = first; row < last; ++row) {
        float* values = &at(row, begin);
        for (std::size_t j = size; j-- > 0;) {
          double sum = values[j];
          for (std::size_t l = j + 1; l < size; ++l) {
            sum -= scaled[l] * diagonal_[j][l];
          }
          scaled[j] = sum;
          values[j] = static_cast<float>(sum / diagonal_[j][j]);
        }
      }
    });
  }

  /** What the block explains of the rows above it: -F D F^T. */
  void subtract(std::size_t begin, std::size_t end) {
    if (begin == 0) {
      return;
    }
    const std::size_t size = end - begin;
    left_.resize(begin * size);
    right_.resize(size * begin);
    for (std::size_t row = 0; row < begin; ++row) {
      for (std::size_t j = 0; j < size; ++j) {
        const float f = at(row, begin + j);
        left_[row * size + j] = static_cast<float>(-f * diagonal_[j][j]);
        right_[j * begin + row] = f;
      }
    }
    add_upper(
        {left_.data(), size, 1},
        {.data = right_.data(), .stride = begin},
        matrix_.data(),
        n_,
        begin,
        size);
  }

  std::vector<float>& matrix_; // [n, n]
  std::size_t n_;
  double least_ = 0;
  double diagonal_[kBlock][kBlock]; // the block's F and D
  std::vector<float> left_; // [begin, size]
  std::vector<float> right_; // [size, begin]
};

// Noises side by side, and how many times.
constexpr std::size_t kLanes = 16;
constexpr std::size_t kRuns = 2;

using Lanes = std::array<float, kLanes>; // of one input

std::vector<Lanes> signs(std::size_t n, std::uint32_t seed) {
  std::mt19937 random(seed); // whose numbers the standard fixes
  std::vector<Lanes> noise(n);
  for (Lanes& lanes : noise) {
    std::uint32_t bits = random();
    for (float& sign : lanes) {
      sign = (bits & 1U) != 0 ? 1.f : -1.f;
      bits >>= 1;
    }
  }
  return noise;
}

/** e of e (I + F) = noise, in place. */
void take_feedback(
    const std::vector<float>& factor,
    std::vector<Lanes>& noise) {
  const std::size_t n = noise.size();
  for (std::size_t j = 0; j < n; ++j) {
    const Lanes e = noise[j];
    const float* row = factor.data() + j * n;
    for (std::size_t k = j + 1; k < n; ++k) {
      for (std::size_t lane = 0; lane < kLanes; ++lane) {
        noise[k][lane] -= e[lane] * row[k];
      }
    }
  }
}

/** The sum over lanes of e V e^T. */
double quadratic(
    std::span<const float> moments,
    const std::vector<Lanes>& errors) {
  const std::size_t n = errors.size();
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const float* row = moments.data() + i * n;
    Lanes products{};
    for (std::size_t j = i + 1; j < n; ++j) {
      for (std::size_t lane = 0; lane < kLanes; ++lane) {
        products[lane] += row[j] * errors[j][lane];
      }
    }
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const double e = errors[i][lane];
      sum += e * (2 * double{products[lane]} + e * row[i]);
    }
  }
  return sum;
}

} // namespace

ErrorMetric plain_metric(std::size_t n_inputs) {
  return {std::vector<float>(n_inputs, 1.f), {}};
}

void add_second_moments(
    std::span<const float> x,
    std::size_t n,
    std::span<float> sums) {
  add_upper(
      {x.data(), 1, n},
      {.data = x.data(), .stride = n},
      sums.data(),
      n,
      n,
      x.size() / n);
}

ErrorMetric diagonal_metric(std::span<const float> moments, std::size_t n) {
  ErrorMetric metric{std::vector<float>(n), {}};
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) {
    sum += metric.importance[i] = moments[i * n + i];
  }
  return sum > 0 ? metric : plain_metric(n);
}

ErrorMetric
factored_metric(std::vector<float> moments, std::size_t n, double damping) {
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) {
    sum += moments[i * n + i];
  }
  if (!(sum > 0)) {
    return plain_metric(n);
  }
  const double added = damping * sum / static_cast<double>(n);
  for (std::size_t i = 0; i < n; ++i) {
    moments[i * n + i] += static_cast<float>(added);
  }
  Factorization(moments, n).run();
  ErrorMetric metric{std::vector<float>(n), std::move(moments)};
  for (std::size_t i = 0; i < n; ++i) {
    metric.importance[i] = metric.factor[i * n + i];
  }
  return metric;
}

double cost_of_rounding(
    const ErrorMetric& metric,
    std::span<const float> moments,
    std::size_t n) {
  std::array<double, kRuns> sums{};
  parallel_for(kRuns, 1, [&](std::size_t begin, std::size_t end) {
    for (std::size_t run = begin; run < end; ++run) {
      std::vector<Lanes> errors = signs(n, static_cast<std::uint32_t>(run));
      if (!metric.factor.empty()) {
        take_feedback(metric.factor, errors);
      }
      sums[run] = quadratic(moments, errors);
    }
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0) / (kRuns * kLanes);
}

} // namespace optiq::kernels
