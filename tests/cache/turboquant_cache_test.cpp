#include "optiq/cache/turboquant_cache.h"

#include <cmath>

#include <gtest/gtest.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "support/expect_error.h"
#include "support/kernel_checks.h"

#include "optiq/kernels/mlx/kv_codec.h"
#include "optiq/kernels/mlx/portable.h"

namespace optiq::cache {
namespace {

namespace mx = mlx::core;
using testing::normal_array;
using testing::rows_of;
using testing::same_bits;

constexpr int kDim = 64;
constexpr int kTokens = 300;
constexpr float kScale = 0.125f;

struct Inputs {
  mx::array q = normal_array({kTokens, 4, kDim}, 1);
  mx::array k = normal_array({kTokens, 2, kDim}, 2);
  mx::array v = normal_array({kTokens, 2, kDim}, 3);
};

TurboQuantKvCache make_cache(float bits, kernels::Compute compute) {
  return TurboQuantKvCache(
      kDim, bits, 42, {.n_kv_heads = 2, .compute = compute});
}

double relative_error(const mx::array& y, const mx::array& expected) {
  mx::array e = mx::contiguous(expected);
  mx::eval(e);
  double error = 0.0;
  double size = 0.0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const double difference = io::floats(y)[i] - io::floats(e)[i];
    error += difference * difference;
    size += double{io::floats(e)[i]} * io::floats(e)[i];
  }
  return std::sqrt(error / size);
}

TEST(TurboQuantKvCache, AttendsToWhatItHolds) {
  const Inputs in;
  TurboQuantKvCache cache = make_cache(4, kernels::Compute::Exact);
  cache.append(in.k, in.v);
  EXPECT_EQ(cache.length(), kTokens);
  const mx::array expected = kernels::portable::attend(
      in.q,
      kernels::portable::cached_keys(in.k, cache.format()),
      kernels::portable::cached_values(in.v, cache.format()),
      {.scale = kScale});
  // A code on the edge of two centroids may fall either way: with 1e-6 of
  // rounding, few of 80,000 do; each moves its vector by 1e-2 of 1/8.
  EXPECT_LT(relative_error(cache.attend(in.q, kScale), expected), 1e-3);
}

TEST(TurboQuantKvCache, MoreBitsAreCloserToTheTruth) {
  const Inputs in;
  const mx::array truth =
      kernels::portable::attend(in.q, in.k, in.v, {.scale = kScale});
  double before = 1.0;
  for (const float bits : {1.f, 2.f, 3.f, 4.f, 5.f}) {
    TurboQuantKvCache cache = make_cache(bits, kernels::Compute::Fast);
    cache.append(in.k, in.v);
    const double error = relative_error(cache.attend(in.q, kScale), truth);
    EXPECT_LT(error, 0.75 * before) << bits;
    before = error;
  }
}

TEST(TurboQuantKvCache, TokenByTokenIsTheSame) {
  const Inputs in;
  TurboQuantKvCache whole = make_cache(3.5f, kernels::Compute::Fast);
  whole.append(in.k, in.v);
  const mx::array y = whole.attend(in.q, kScale);
  TurboQuantKvCache steps = make_cache(3.5f, kernels::Compute::Fast);
  for (int t = 0; t < kTokens; ++t) {
    steps.append(rows_of(in.k, t, 1), rows_of(in.v, t, 1));
    const mx::array row = steps.attend(rows_of(in.q, t, 1), kScale);
    ASSERT_TRUE(same_bits(io::floats(row), io::floats(rows_of(y, t, 1)))) << t;
  }
}

TEST(TurboQuantKvCache, HoldsPackedCodes) {
  TurboQuantKvCache cache(128);
  EXPECT_EQ(cache.nbytes(), 0u);
  cache.append(normal_array({64, 1, 128}, 1), normal_array({64, 1, 128}, 2));
  EXPECT_EQ(cache.nbytes(), 64u * 2 * 66);
  cache.append(normal_array({1, 1, 128}, 1), normal_array({1, 1, 128}, 2));
  EXPECT_EQ(cache.nbytes(), 2 * 64u * 2 * 66);
}

TEST(TurboQuantKvCache, SeedsChangeTheCodes) {
  const Inputs in;
  const auto attended = [&](std::uint64_t seed) {
    TurboQuantKvCache cache(kDim, 2, seed, {.n_kv_heads = 2});
    cache.append(in.k, in.v);
    return cache.attend(in.q, kScale);
  };
  EXPECT_TRUE(same_bits(io::floats(attended(42)), io::floats(attended(42))));
  EXPECT_FALSE(same_bits(io::floats(attended(42)), io::floats(attended(43))));
}

TEST(TurboQuantKvCache, RefusesWhatDoesNotFit) {
  const auto refused = [](const std::string& words, const auto& body) {
    test::expect_error(ErrorKind::InvalidInput, {words}, body);
  };
  test::expect_error(ErrorKind::Unsupported, {"at most 5"}, [] {
    TurboQuantKvCache(kDim, 6);
  });
  TurboQuantKvCache cache(kDim);
  const mx::array one = normal_array({1, 1, kDim}, 1);
  refused("found 1 rows", [&] { cache.attend(one, 1.f); });
  refused("k: found", [&] { cache.append(normal_array({1, 1, 32}, 1), one); });
  refused("v: found", [&] {
    cache.append(one, normal_array({2, 1, kDim}, 1));
  });
  EXPECT_EQ(cache.length(), 0);
  TurboQuantKvCache small(kDim, 4, 42, {.max_bytes = 1000});
  test::expect_error(
      ErrorKind::Exhausted, {"1000 bytes"}, [&] { small.append(one, one); });
}

} // namespace
} // namespace optiq::cache
