#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "optiq/generate/logit_row.h"
#include "optiq/generate/selection_impl.h"

namespace optiq::generate {
namespace {

using Row = std::vector<float>;
using Ids = std::vector<std::int32_t>;

Ids selected(const Row& logits, const SamplerOptions& options) {
  const LogitRow row(logits);
  LogitScan scan(row);
  return select_tokens(scan, options).tokens().ids;
}

/** The definitions, one filter after the other, each of which sorts all tokens
 * that are left. */
class Sorted {
 public:
  explicit Sorted(const Row& logits) {
    for (std::size_t i = 0; i < logits.size(); ++i) {
      if (std::isfinite(logits[i])) {
        left_.push_back({logits[i], static_cast<std::int32_t>(i)});
      }
    }
    sort();
  }

  void set_temperature(double temperature) {
    temperature_ = temperature;
  }
  void top_k(std::size_t k) {
    left_.resize(std::min(k, left_.size()));
  }
  void keep_mass(double share, const std::function<double(double)>& key) {
    const auto p = probabilities();
    std::vector<double> keys;
    for (const double x : p) {
      keys.push_back(key(x));
    }
    std::vector<std::size_t> order(p.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
      return keys[a] < keys[b];
    });
    double held = 0;
    std::vector<Token> kept;
    for (const std::size_t i : order) {
      if (held < share) {
        kept.push_back(left_[i]);
      }
      held += p[i];
    }
    left_ = kept;
    sort();
  }
  void keep_from(double least) {
    const auto p = probabilities();
    std::vector<Token> kept;
    for (std::size_t i = 0; i < p.size(); ++i) {
      if (p[i] >= least || p[i] == p[0]) {
        kept.push_back(left_[i]);
      }
    }
    left_ = kept;
  }
  double largest() const {
    return probabilities()[0];
  }
  double entropy() const {
    double sum = 0;
    for (const double p : probabilities()) {
      sum -= p > 0 ? p * std::log(p) : 0;
    }
    return sum;
  }
  Ids ids() const {
    Ids ids;
    for (const Token& token : left_) {
      ids.push_back(token.id);
    }
    std::sort(ids.begin(), ids.end());
    return ids;
  }

 private:
  struct Token {
    double logit;
    std::int32_t id;
  };

  void sort() {
    std::sort(left_.begin(), left_.end(), [](const Token& a, const Token& b) {
      return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
    });
  }
  std::vector<double> probabilities() const {
    std::vector<double> p;
    for (const Token& token : left_) {
      p.push_back(std::exp((token.logit - left_[0].logit) / temperature_));
    }
    const double total = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& x : p) {
      x /= total;
    }
    return p;
  }

  std::vector<Token> left_; // the most probable first
  double temperature_ = 1;
};

Ids expected(const Row& logits, const SamplerOptions& o) {
  Sorted left(logits);
  const auto top_k = [&] {
    if (o.top_k > 0) {
      left.top_k(static_cast<std::size_t>(o.top_k));
    }
  };
  const bool is_warmed = o.order == FilterOrder::Transformers;
  if (is_warmed) {
    left.set_temperature(o.temperature);
    top_k();
  }
  if (o.top_p < 1.f) {
    left.keep_mass(o.top_p, [](double p) { return -p; });
  }
  if (o.min_p > 0.f) {
    left.keep_from(o.min_p * left.largest());
  }
  if (!is_warmed) {
    top_k();
  }
  if (o.typical_p < 1.f) {
    const double h = left.entropy();
    left.keep_mass(o.typical_p, [h](double p) {
      return p > 0 ? std::abs(-std::log(p) - h) : INFINITY;
    });
  }
  if (o.epsilon_cutoff > 0.f) {
    left.keep_from(o.epsilon_cutoff);
  }
  if (o.eta_cutoff > 0.f) {
    const double eta = o.eta_cutoff;
    left.keep_from(std::min(eta, std::sqrt(eta) * std::exp(-left.entropy())));
  }
  return left.ids();
}

class Random {
 public:
  std::size_t below(std::size_t n) {
    return engine_() % n;
  }
  bool is_one_of(std::size_t n) {
    return below(n) == 0;
  }
  float uniform(float from, float to) {
    return from +
        (to - from) * static_cast<float>(engine_() >> 11) *
        static_cast<float>(0x1p-53);
  }

  /** Ties, NaN and infinities now and then. */
  Row row() {
    const float spread = uniform(.1f, 30.f);
    const bool has_ties = is_one_of(3);
    const bool has_holes = is_one_of(3);
    Row row(1 + below(is_one_of(5) ? 1500 : 60));
    for (float& logit : row) {
      logit = uniform(-spread, spread);
      logit = has_ties ? std::round(logit) : logit;
      if (has_holes && is_one_of(4)) {
        logit = is_one_of(2) ? std::nanf("") : -INFINITY;
      }
    }
    row[below(row.size())] = spread;
    return row;
  }
  SamplerOptions options() {
    SamplerOptions o{.temperature = uniform(.2f, 3.f)};
    o.top_k = is_one_of(2) ? static_cast<int>(below(40)) : 0;
    o.top_p = is_one_of(2) ? uniform(.01f, 1.f) : 1.f;
    o.min_p = is_one_of(3) ? uniform(0.f, .5f) : 0.f;
    o.typical_p = is_one_of(3) ? uniform(.01f, 1.f) : 1.f;
    o.epsilon_cutoff = is_one_of(5) ? uniform(0.f, .1f) : 0.f;
    o.eta_cutoff = is_one_of(5) ? uniform(0.f, .1f) : 0.f;
    o.order = is_one_of(2) ? FilterOrder::MlxLm : FilterOrder::Transformers;
    return o;
  }

 private:
  std::mt19937_64 engine_{11};
};

// Masses are right to about 3e-7, so a border that lies nearer than that to a
// token may fall on either side of it: none does in these cases.
TEST(Selection, EqualsTheDefinitions) {
  Random random;
  for (int i = 0; i < 4000; ++i) {
    const Row row = random.row();
    const SamplerOptions o = random.options();
    ASSERT_EQ(selected(row, o), expected(row, o)) << fmt::format(
        "case {}: {} logits, temperature {} top_p {} min_p {} top_k {} "
        "typical_p {} epsilon {} eta {} order {}",
        i,
        row.size(),
        o.temperature,
        o.top_p,
        o.min_p,
        o.top_k,
        o.typical_p,
        o.epsilon_cutoff,
        o.eta_cutoff,
        static_cast<int>(o.order));
  }
}

TEST(Selection, TiesGoToTheLowestIds) {
  const Row row(700, 1.f);
  const Ids first{0, 1, 2};
  EXPECT_EQ(selected(row, {.temperature = 1.f, .top_k = 3}), first);
  EXPECT_EQ(selected(row, {.temperature = 1.f, .top_p = 2.5f / 700}), first);
  EXPECT_EQ(
      selected(row, {.temperature = 1.f, .typical_p = 2.5f / 700}), first);
}

TEST(Selection, OptionsAtTheirEnds) {
  const float least = std::numeric_limits<float>::denorm_min();
  const float almost = std::nextafter(1.f, 0.f);
  const float most = std::numeric_limits<float>::max();
  const Row row{1, 3, -INFINITY, 2, 3, std::nanf("")};
  const Ids best{1};
  const Ids finite{0, 1, 3, 4};
  EXPECT_EQ(selected(row, {.temperature = 1.f, .top_p = least}), best);
  EXPECT_EQ(selected(row, {.temperature = 1.f, .top_p = almost}), finite);
  EXPECT_EQ(selected(row, {.temperature = 1.f, .min_p = least}), finite);
  EXPECT_EQ(selected(row, {.temperature = 1.f, .min_p = almost}), (Ids{1, 4}));
  EXPECT_EQ(selected(row, {.temperature = 1.f, .typical_p = almost}), finite);
  for (const int k : {4, 5, 6, 7, std::numeric_limits<int>::max()}) {
    EXPECT_EQ(selected(row, {.temperature = 1.f, .top_k = k}), finite) << k;
  }
  for (const float temperature : {least, most}) {
    for (const auto order : {FilterOrder::MlxLm, FilterOrder::Transformers}) {
      const auto ids = selected(
          row, {.temperature = temperature, .top_p = .5f, .order = order});
      EXPECT_TRUE(std::find(ids.begin(), ids.end(), 1) != ids.end());
    }
  }
}

/** The nucleus has the wanted mass, less its last token's it has not. */
TEST(Selection, NucleusOfAHugeVocabulary) {
  std::mt19937 engine(3);
  std::normal_distribution<float> normal;
  Row row(250'000);
  for (float& logit : row) {
    logit = normal(engine);
  }
  Row sorted = row;
  std::sort(sorted.rbegin(), sorted.rend());
  std::vector<double> mass{0}; // of the n most probable
  for (const float logit : sorted) {
    mass.push_back(mass.back() + std::exp(double{logit} - sorted[0]));
  }
  for (const float p : {.01f, .5f, .9f, .999f}) {
    const Ids ids = selected(row, {.temperature = 1.f, .top_p = p});
    const std::size_t n = ids.size();
    EXPECT_GE(mass[n], (p - 3e-7) * mass.back());
    EXPECT_LT(mass[n - 1], (p + 3e-7) * mass.back());
    for (const std::int32_t id : ids) {
      ASSERT_GE(row[static_cast<std::size_t>(id)], sorted[n - 1]);
    }
  }
  for (const int k : {1, 20, 976, 977, 978, 5000}) {
    const Ids ids = selected(row, {.temperature = 1.f, .top_k = k});
    ASSERT_EQ(ids.size(), static_cast<std::size_t>(k));
    for (const std::int32_t id : ids) {
      ASSERT_GE(row[static_cast<std::size_t>(id)], sorted[ids.size() - 1]);
    }
  }
}

} // namespace
} // namespace optiq::generate
