#include "optiq/generate/sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
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

double entropy(const std::vector<double>& p) {
  double sum = 0;
  for (const double x : p) {
    sum -= x > 0 ? x * std::log(x) : 0;
  }
  return sum;
}

std::vector<double> softmax(const std::vector<double>& scores) {
  const double top = *std::max_element(scores.begin(), scores.end());
  std::vector<double> p;
  for (const double s : scores) {
    p.push_back(std::exp(s - top));
  }
  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p) {
    x /= total;
  }
  return p;
}

/** Scores of the tokens that a filter takes away become minus infinity. */
using Filter = std::function<void(std::vector<double>& scores)>;

/** Sorts all tokens by a key and keeps the fewest that have this mass. */
Filter keep_mass(
    double mass,
    std::function<double(double p, double entropy)> key) {
  return [=](std::vector<double>& scores) {
    const auto p = softmax(scores);
    const double h = entropy(p);
    std::vector<std::size_t> order(p.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
      return key(p[a], h) < key(p[b], h);
    });
    double held = 0;
    for (const std::size_t i : order) {
      if (held >= mass) {
        scores[i] = -INFINITY;
      }
      held += p[i];
    }
  };
}

/** Takes the tokens below the threshold away, but not the most probable. */
Filter keep_from(
    const std::function<double(const std::vector<double>& p)>& least) {
  return [=](std::vector<double>& scores) {
    const auto p = softmax(scores);
    const double top = *std::max_element(p.begin(), p.end());
    const double threshold = least(p);
    for (std::size_t i = 0; i < p.size(); ++i) {
      if (p[i] < threshold && p[i] < top) {
        scores[i] = -INFINITY;
      }
    }
  };
}

/** The definitions, with a full sort in double precision: probabilities of all
 * tokens. */
std::vector<double> expected(
    const std::vector<float>& logits,
    const SamplerOptions& o) {
  std::vector<double> scores(logits.begin(), logits.end());
  const auto scale = [&](std::vector<double>& all) {
    for (double& s : all) {
      s /= o.temperature;
    }
  };
  const auto most_probable = [](double p, double) { return -p; };
  const Filter top_k = [&](std::vector<double>& all) {
    auto sorted = all;
    std::sort(sorted.rbegin(), sorted.rend());
    for (double& s : all) {
      if (o.top_k > 0 && s < sorted[static_cast<std::size_t>(o.top_k) - 1]) {
        s = -INFINITY;
      }
    }
  };
  const Filter top_p = keep_mass(o.top_p, most_probable);
  const Filter min_p = keep_from([&](const std::vector<double>& p) {
    return o.min_p * *std::max_element(p.begin(), p.end());
  });
  const Filter typical = keep_mass(o.typical_p, [](double p, double h) {
    return p > 0 ? std::abs(-std::log(p) - h) : INFINITY;
  });
  const Filter epsilon =
      keep_from([&](const auto&) { return double{o.epsilon_cutoff}; });
  const Filter eta = keep_from([&](const std::vector<double>& p) {
    return std::min(
        double{o.eta_cutoff},
        std::sqrt(double{o.eta_cutoff}) * std::exp(-entropy(p)));
  });
  const std::vector<Filter> steps = o.order == FilterOrder::MlxLm
      ? std::vector<Filter>{top_p, min_p, top_k, typical, epsilon, eta, scale}
      : std::vector<Filter>{scale, top_k, top_p, min_p, typical, epsilon, eta};
  for (const Filter& step : steps) {
    step(scores);
  }
  return softmax(scores);
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

/** Draws must have the probabilities: none of what has none, the others within
 * a chi-square of mean + 6 standard deviations. */
void expect_drawn(
    const std::vector<float>& logits,
    const SamplerOptions& options,
    int n) {
  const auto p = expected(logits, options);
  Sampler sampler(options);
  std::vector<int> counts(p.size());
  for (int i = 0; i < n; ++i) {
    ++counts[static_cast<std::size_t>(sampler.sample(logits))];
  }
  double chi_square = 0;
  int kept = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (p[i] == 0) {
      EXPECT_EQ(counts[i], 0) << "token " << i;
      continue;
    }
    const double wanted = n * p[i];
    chi_square += (counts[i] - wanted) * (counts[i] - wanted) / wanted;
    ++kept;
  }
  EXPECT_LT(chi_square, kept + 6 * std::sqrt(2.0 * kept));
}

TEST(Sampler, DrawsAsTheDefinitionsSay) {
  // Logits 2, 1.9, 1.8, ... in shuffled order: every probability above 1/500.
  std::vector<float> logits(37);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    logits[i] = 2.f - .1f * static_cast<float>(i * 7 % logits.size());
  }
  std::vector<SamplerOptions> cases{
      {.top_p = .05f},
      {.top_p = .6f},
      {.min_p = .3f},
      {.top_k = 5},
      {.typical_p = .2f},
      {.typical_p = .7f},
      {.epsilon_cutoff = .03f},
      {.epsilon_cutoff = .9f},
      {.eta_cutoff = .1f},
      {.top_p = .8f, .min_p = .2f, .top_k = 20, .typical_p = .9f},
      {.top_p = .7f, .top_k = 8},
      {.top_p = .9f, .typical_p = .5f, .epsilon_cutoff = .02f},
  };
  for (SamplerOptions options : cases) {
    for (const float temperature : {.5f, 1.f, 1.7f}) {
      for (const FilterOrder order :
           {FilterOrder::MlxLm, FilterOrder::Transformers}) {
        options.temperature = temperature;
        options.order = order;
        ++options.seed;
        SCOPED_TRACE(fmt::format(
            "temperature {} top_p {} top_k {} typical_p {} order {}",
            temperature,
            options.top_p,
            options.top_k,
            options.typical_p,
            static_cast<int>(order)));
        expect_drawn(logits, options, 2000);
      }
    }
  }
}

TEST(Sampler, FindsANucleusOfManyTokens) {
  // Nearly flat: the nucleus is found in several rounds.
  std::vector<float> logits(1200);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    logits[i] = std::sin(static_cast<float>(i));
  }
  for (const float top_p : {.03f, .3f, .9f, .999f}) {
    expect_drawn(logits, {.temperature = 1.f, .top_p = top_p}, 1500);
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

TEST(Sampler, GreedyPassesOverWhatIsNoNumber) {
  Sampler sampler({});
  EXPECT_EQ(sampler.sample(std::vector<float>{std::nanf(""), 1, 2}), 2);
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
           SamplerOptions{.typical_p = 0.f},
           SamplerOptions{.typical_p = std::nanf("")},
           SamplerOptions{.epsilon_cutoff = 1.f},
           SamplerOptions{.eta_cutoff = -.1f},
       }) {
    EXPECT_THROW(Sampler{bad}, Error);
  }
}

} // namespace
} // namespace optiq::generate
