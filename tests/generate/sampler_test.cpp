#include "optiq/generate/sampler.h"

#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include <gtest/gtest.h>

#include "optiq/base/error.h"

namespace optiq::generate {
namespace {

// Probabilities .4, .3, .2, .1 in shuffled order: ids 2, 0, 3, 1.
const std::vector<float> kLogits{
    std::log(.3f),
    std::log(.1f),
    std::log(.4f),
    std::log(.2f)};

std::map<int, int> draw(const SamplerOptions& options, int n) {
  Sampler sampler(options);
  std::map<int, int> counts;
  for (int i = 0; i < n; ++i) {
    ++counts[sampler.sample(kLogits)];
  }
  return counts;
}

/** Standard deviation of the count of an event of probability p in n draws. */
double sigma(double p, int n) {
  return std::sqrt(n * p * (1 - p));
}

TEST(Sampler, TemperatureZeroTakesTheFirstOfTheLargest) {
  Sampler sampler({});
  EXPECT_EQ(sampler.sample(kLogits), 2);
  EXPECT_EQ(sampler.sample(std::vector<float>{1, 5, 5, 2}), 1);
}

TEST(Sampler, DrawsFromTheDistribution) {
  constexpr int kDraws = 20000;
  const auto counts = draw({.temperature = 1.f, .seed = 7}, kDraws);
  const double expected[] = {.3, .1, .4, .2};
  for (int id = 0; id < 4; ++id) {
    EXPECT_NEAR(
        counts.at(id), expected[id] * kDraws, 5 * sigma(expected[id], kDraws));
  }
}

TEST(Sampler, TemperatureSharpens) {
  // At temperature 1/2 probabilities are squared: .16 .09 .04 .01 over .30.
  constexpr int kDraws = 20000;
  const auto counts = draw({.temperature = .5f, .seed = 7}, kDraws);
  EXPECT_NEAR(counts.at(2), kDraws * .16 / .30, 5 * sigma(.16 / .30, kDraws));
}

TEST(Sampler, FiltersKeepWhatTheyShould) {
  struct Case {
    SamplerOptions options;
    std::vector<int> kept;
  };
  const Case cases[] = {
      {{.temperature = 1.f, .top_k = 1}, {2}},
      {{.temperature = 1.f, .top_k = 3}, {0, 2, 3}},
      {{.temperature = 1.f, .top_p = .3f}, {2}},
      {{.temperature = 1.f, .top_p = .69f}, {0, 2}},
      {{.temperature = 1.f, .top_p = .71f}, {0, 2, 3}},
      {{.temperature = 1.f, .min_p = .6f}, {0, 2}},
      {{.temperature = 1.f, .top_p = .95f, .min_p = .6f, .top_k = 1}, {2}},
      {{.temperature = 1.f, .top_k = 99}, {0, 1, 2, 3}},
  };
  for (const Case& c : cases) {
    std::vector<int> kept;
    for (const auto& [id, count] : draw(c.options, 2000)) {
      kept.push_back(id);
    }
    EXPECT_EQ(kept, c.kept);
  }
}

TEST(Sampler, OneSeedGivesOneSequence) {
  Sampler a({.temperature = 1.f, .seed = 3});
  Sampler b({.temperature = 1.f, .seed = 3});
  Sampler c({.temperature = 1.f, .seed = 4});
  bool differs = false;
  for (int i = 0; i < 64; ++i) {
    const auto drawn = a.sample(kLogits);
    EXPECT_EQ(drawn, b.sample(kLogits));
    differs = differs || drawn != c.sample(kLogits);
  }
  EXPECT_TRUE(differs);
}

TEST(Sampler, NeverDrawsMinusInfinityOrNan) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> logits{-inf, 0.f, std::nanf(""), -inf};
  Sampler sampler({.temperature = 2.f});
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(sampler.sample(logits), 1);
  }
}

TEST(Sampler, RefusesValuesOutOfRange) {
  for (const SamplerOptions& bad : {
           SamplerOptions{.temperature = -1.f},
           SamplerOptions{.temperature = std::nanf("")},
           SamplerOptions{.top_p = 0.f},
           SamplerOptions{.top_p = 1.5f},
           SamplerOptions{.min_p = 1.f},
           SamplerOptions{.min_p = -.1f},
           SamplerOptions{.top_k = -1},
       }) {
    EXPECT_THROW(Sampler{bad}, Error);
  }
}

} // namespace
} // namespace optiq::generate
