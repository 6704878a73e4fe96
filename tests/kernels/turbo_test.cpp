#include <cmath>
#include <vector>

#include <gtest/gtest.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "support/cpu_operations.h"
#include "support/expect_error.h"
#include "support/kernel_checks.h"

#include "optiq/kernels/mlx/kv_codec.h"

namespace optiq::kernels {
namespace {

namespace mx = mlx::core;
using testing::kUnit;
using testing::normal_array;

const std::vector<KvRotation> kRotations{
    KvRotation::Hadamard,
    KvRotation::Orthogonal};

/** Mean squared error of a codebook for N(0, 1), integrated in double. */
double distortion(const std::vector<float>& centroids) {
  double sum = 0.0;
  constexpr int kSteps = 180'000; // from -9 to 9
  constexpr double kStep = 18.0 / kSteps;
  for (int i = 0; i < kSteps; ++i) {
    const double x = i * kStep - 9.0;
    double best = INFINITY;
    for (const float c : centroids) {
      best = std::min(best, (x - c) * (x - c));
    }
    sum += best * std::exp(-x * x / 2) / std::sqrt(2 * M_PI) * kStep;
  }
  return sum;
}

TEST(Turbo, CodebooksAreThoseOfTheNormalDistribution) {
  // Positive halves and errors of the converged codebooks, to 4 digits.
  const std::vector<std::vector<double>> positive{
      {.7979},
      {.4528, 1.5104},
      {.2451, .7560, 1.3439, 2.1519},
      {.1284, .3880, .6568, .9423, 1.2562, 1.6180, 2.0690, 2.7326},
      {.0659,
       .1981,
       .3314,
       .4667,
       .6049,
       .7471,
       .8946,
       1.0488,
       1.2118,
       1.3863,
       1.5762,
       1.7872,
       2.0287,
       2.3177,
       2.6911,
       3.2607}};
  const std::vector<double> errors{.363380, .117482, .034548, .009501, .002505};
  for (int bits = 1; bits <= 5; ++bits) {
    const std::vector<float> centroids = turbo_centroids(bits);
    const std::vector<double>& expected = positive[bits - 1];
    ASSERT_EQ(centroids.size(), std::size_t{1} << bits);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(centroids[expected.size() + i], expected[i], 0.5001e-4);
      EXPECT_EQ(
          centroids[expected.size() + i], -centroids[expected.size() - 1 - i]);
    }
    EXPECT_NEAR(distortion(centroids), errors[bits - 1], 1e-6);
  }
  test::expect_error(
      ErrorKind::Unsupported, {"6 bits"}, [] { turbo_centroids(6); });
}

TEST(Turbo, RotationsKeepInnerProductsAndTurnBack) {
  for (const KvRotation kind : kRotations) {
    for (const int dim : {16, 64, 80, 96, 128, 240, 256}) {
      SCOPED_TRACE(dim);
      const mx::array x = normal_array({20, dim}, 3);
      testing::for_each_target([&] {
        const mx::array y = rotate_vectors(x, kind, 9);
        const mx::array back = rotate_vectors(y, kind, 9, true);
        for (int a = 0; a < 20; ++a) {
          for (int b = 0; b < 20; ++b) {
            double before = 0.0;
            double after = 0.0;
            double size_a = 0.0;
            double size_b = 0.0;
            for (int i = 0; i < dim; ++i) {
              const double xa = io::floats(x)[a * dim + i];
              const double xb = io::floats(x)[b * dim + i];
              before += xa * xb;
              size_a += xa * xa;
              size_b += xb * xb;
              after += double{io::floats(y)[a * dim + i]} *
                  io::floats(y)[b * dim + i];
            }
            // A rotated channel is a sum of dim products, whose sizes add up to
            // sqrt(dim) |x| at most.
            const double rounding =
                2 * (dim + 4) * kUnit * std::sqrt(dim * size_a * size_b);
            EXPECT_NEAR(before, after, 2 * rounding);
          }
        }
        for (std::size_t i = 0; i < x.size(); ++i) {
          EXPECT_NEAR(
              io::floats(x)[i],
              io::floats(back)[i],
              4 * (dim + 4) * kUnit * dim);
        }
      });
    }
  }
}

TEST(Turbo, RotationsSpreadEveryChannelOverAllOthers) {
  for (const KvRotation kind : kRotations) {
    for (const int dim : {64, 80, 96, 128}) {
      mx::array unit = mx::contiguous(mx::eye(dim));
      mx::eval(unit);
      const mx::array m = rotate_vectors(unit, kind, 1);
      for (const float x : io::floats(m)) {
        // One channel keeps at most 6 standard deviations; a transform of a run
        // of 16 alone would keep 1/4 of it.
        EXPECT_LT(std::abs(x), 6 / std::sqrt(static_cast<double>(dim)));
      }
    }
  }
}

TEST(Turbo, SeedsAndKindsGiveDifferentRotations) {
  const mx::array x = normal_array({1, 64}, 5);
  const auto rotated = [&](KvRotation kind, std::uint64_t seed) {
    const mx::array y = rotate_vectors(x, kind, seed);
    return std::vector<float>(io::floats(y).begin(), io::floats(y).end());
  };
  for (const KvRotation kind : kRotations) {
    EXPECT_EQ(rotated(kind, 42), rotated(kind, 42));
    EXPECT_NE(rotated(kind, 42), rotated(kind, 43));
  }
  EXPECT_NE(
      rotated(KvRotation::Hadamard, 42), rotated(KvRotation::Orthogonal, 42));
}

struct Distortion {
  double mse = 0; // of unit vectors
  double inner = 0; // squared error of <x, y>, |y| = 1
  double mse_error = 0; // standard errors of the means
  double inner_error = 0;
};

/** Over random unit vectors, as arXiv 2504.19874 measures. */
Distortion
measure(KvRotation rotation, float bits, int dim, std::uint64_t seed) {
  constexpr int kVectors = 2000;
  const KvFormat format = make_kv_format(
      {.n_kv_heads = 1,
       .head_dim = dim,
       .codec = {
           .method = KvMethod::Turbo,
           .key_bits = bits,
           .rotation = rotation,
           .seed = seed}});
  const auto unit = [&](unsigned s) {
    const mx::array x = normal_array({kVectors, 1, dim}, s);
    return mx::divide(x, mx::sqrt(mx::sum(mx::square(x), -1, true)));
  };
  const mx::array x = unit(1);
  const mx::array y = unit(2);
  const mx::array error = mx::subtract(portable::cached_keys(x, format), x);
  mx::array mse = mx::sum(mx::square(error), -1);
  mx::array inner = mx::square(mx::sum(mx::multiply(error, y), -1));
  mx::eval(mse, inner);
  const auto mean = [](const mx::array& values, double& deviation) {
    double sum = 0.0;
    double squares = 0.0;
    for (const float v : io::floats(values)) {
      sum += v;
      squares += double{v} * v;
    }
    const double m = sum / kVectors;
    deviation = std::sqrt((squares / kVectors - m * m) / kVectors);
    return m;
  };
  Distortion d;
  d.mse = mean(mse, d.mse_error);
  d.inner = mean(inner, d.inner_error);
  return d;
}

TEST(Turbo, DistortionIsThatOfThePaper) {
  // MSE of 1..4 bits; the inner products of the paper's two-stage variant,
  // whose bits here all go to the codebook: the error must be at most its.
  const std::vector<double> mse{.36, .117, .03, .009};
  const std::vector<double> inner{1.57, .56, .18, .047}; // / dim
  const std::vector<double> half_unit{.005, .0005, .005, .0005};
  for (const KvRotation rotation : kRotations) {
    for (const int dim : {64, 80, 128}) {
      for (int bits = 1; bits <= 4; ++bits) {
        SCOPED_TRACE(::testing::Message() << bits << " bits of " << dim);
        const Distortion d =
            measure(rotation, static_cast<float>(bits), dim, 42);
        // The coordinates of a unit vector are slightly less spread than normal
        // ones: the error is lower by a factor 1 - O(1 / dim).
        EXPECT_LE(d.mse, mse[bits - 1] + half_unit[bits - 1] + 4 * d.mse_error);
        EXPECT_GE(
            d.mse, (mse[bits - 1] - half_unit[bits - 1]) * (1 - 3.0 / dim));
        EXPECT_LE(d.inner, inner[bits - 1] / dim);
        // For a y of random direction the inner product sees 1 / dim of it.
        EXPECT_NEAR(d.inner, d.mse / dim, 5 * d.inner_error);
        // The bound of the paper, and that of any quantizer.
        EXPECT_LE(d.mse, std::sqrt(3.0) * M_PI / 2 * std::pow(4, -bits));
        EXPECT_GE(d.mse, std::pow(4, -bits) * (1 - 3.0 / dim));
      }
    }
  }
}

TEST(Turbo, HalfBitsLieBetweenTheirNeighbours) {
  for (const int dim : {64, 128}) {
    const double two = measure(KvRotation::Hadamard, 2, dim, 1).mse;
    const double half = measure(KvRotation::Hadamard, 2.5f, dim, 1).mse;
    const double three = measure(KvRotation::Hadamard, 3, dim, 1).mse;
    EXPECT_NEAR(half, (two + three) / 2, 0.05 * two);
  }
}

TEST(Turbo, RefusesVectorsItCannotRotate) {
  const auto refused = [](const mx::Shape& shape) {
    test::expect_error(ErrorKind::InvalidInput, {"rotate_vectors"}, [&] {
      rotate_vectors(normal_array(shape, 1), KvRotation::Hadamard, 1);
    });
  };
  refused({3, 20});
  refused({3, 272});
}

} // namespace
} // namespace optiq::kernels
