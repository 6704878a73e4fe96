#include "optiq/quant/kv_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace optiq::quant {
namespace {

using artifacts::KvMethod;

/** Bytes of one side of a block: codes, and scales of 4 bytes per group of 64
 * or a norm of 2. */
std::uint64_t side_bytes(KvMethod method, double bits, int dims) {
  const double values = 64.0 * dims;
  const double scales =
      method == KvMethod::Affine ? values / 64 * 4 : values / dims * 2;
  return static_cast<std::uint64_t>(values * bits / 8 + scales);
}

bool has_width(KvMethod method, double bits) {
  return method == KvMethod::Affine
      ? bits == std::floor(bits) && bits >= 2 && bits <= 8 && bits != 7
      : bits <= 5;
}

KvLayerOffers offers_of(int layer, int dims, const KvSearch& search) {
  KvLayerOffers offers{
      .layer_idx = layer,
      .layer_name = "model.layers." + std::to_string(layer),
      .n_kv_heads = 1,
      .head_dim = dims,
      .dense_bytes = std::uint64_t{2} * 64 * 2 * dims,
      .offers = {},
      .refusals = {}};
  for (const KvMethod method : search.methods) {
    for (const double bits : search.candidate_bits) {
      if (has_width(method, bits)) {
        const std::uint64_t bytes = side_bytes(method, bits, dims);
        offers.offers.push_back({method, bits, bytes, bytes});
      }
    }
  }
  return offers;
}

/** KL = weight x 4^-bits of each side. */
KvMeasured measured_of(
    const KvLayerOffers& offers,
    const KvSearch& search,
    double key_weight,
    double value_weight) {
  KvMeasured measured;
  measured.layer.layer_idx = offers.layer_idx;
  measured.layer.layer_name = offers.layer_name;
  measured.layer.n_kv_heads = offers.n_kv_heads;
  measured.layer.head_dim = offers.head_dim;
  const auto add = [&](const KvOffer& offer, bool keys, bool values) {
    const double kl = std::exp2(-2 * offer.bits) *
        ((keys ? key_weight : 0) + (values ? value_weight : 0));
    measured.layer.candidates.push_back(
        {.codec =
             {.method = offer.method,
              .key_bits = keys ? offer.bits : 0,
              .value_bits = values ? offer.bits : 0},
         .kl = kl});
    measured.relative_kl.push_back(10 * kl);
  };
  for (const KvOffer& offer : offers.offers) {
    if (search.split) {
      add(offer, true, false);
      add(offer, false, true);
    } else {
      add(offer, true, true);
    }
  }
  return measured;
}

struct Case {
  std::vector<KvLayerOffers> layers;
  std::vector<KvMeasured> measured;
};

/** Layers with these weights of keys and values. */
Case case_of(
    const KvSearch& search,
    const std::vector<std::pair<double, double>>& weights,
    const std::vector<int>& dims = {64}) {
  Case made;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    made.layers.push_back(
        offers_of(static_cast<int>(i), dims[i % dims.size()], search));
    made.measured.push_back(measured_of(
        made.layers.back(), search, weights[i].first, weights[i].second));
  }
  return made;
}

std::uint64_t bytes_of(const KvPlan& plan, const Case& c) {
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < plan.layers.size(); ++i) {
    const int dims = c.layers[i].head_dim;
    bytes +=
        side_bytes(
            plan.layers[i].codec.method, plan.layers[i].codec.key_bits, dims) +
        side_bytes(
            plan.layers[i].codec.method, plan.layers[i].codec.value_bits, dims);
  }
  return bytes;
}

const std::vector<KvMethod> kBoth{KvMethod::Affine, KvMethod::Turbo};

TEST(KvPlan, NoPlanIsOverTheBudget) {
  std::mt19937 random(1);
  std::lognormal_distribution<double> weight(0, 3);
  for (int round = 0; round < 200; ++round) {
    KvSearch search;
    search.split = round % 2 == 1;
    search.methods = round % 4 < 2 ? kBoth : std::vector{KvMethod::Affine};
    search.candidate_bits = {2, 3, 4, 8};
    std::vector<std::pair<double, double>> weights;
    for (int i = 0; i < 1 + round % 5; ++i) {
      weights.emplace_back(weight(random), weight(random));
    }
    const Case c = case_of(search, weights, {64, 128});
    std::uint64_t least = 0;
    std::uint64_t most = 0;
    for (const KvLayerOffers& layer : c.layers) {
      const auto [low, high] = std::minmax_element(
          layer.offers.begin(), layer.offers.end(), [](auto& a, auto& b) {
            return a.key_bytes < b.key_bytes;
          });
      least += 2 * low->key_bytes;
      most += 2 * high->key_bytes;
    }
    const std::uint64_t budget =
        std::uniform_int_distribution(least, most)(random);
    const auto plans = make_kv_plans(c.layers, c.measured, search, budget);
    ASSERT_FALSE(plans.empty());
    for (const KvPlan& plan : plans) {
      EXPECT_EQ(plan.block_bytes, bytes_of(plan, c)) << plan.origin;
      EXPECT_LE(plan.block_bytes, budget) << plan.origin;
      EXPECT_EQ(plan.layers.size(), c.layers.size());
    }
    // The first follows the KL alone: no uniform one has less of it.
    for (const KvPlan& plan : plans) {
      if (plan.origin.starts_with("uniform")) {
        EXPECT_LE(plans.front().predicted_kl, plan.predicted_kl * (1 + 1e-12));
      }
    }
    test::expect_error(ErrorKind::InvalidInput, {"narrowest"}, [&] {
      make_kv_plans(c.layers, c.measured, search, least - 1);
    });
  }
}

TEST(KvPlan, ASensitiveLayerGetsTheBits) {
  KvSearch search;
  const Case c = case_of(search, {{1, 1}, {1, 1}, {1000, 1000}, {1, 1}});
  const std::uint64_t budget = kv_budget(c.layers, search, {.bits = 5});
  const auto plan = make_kv_plans(c.layers, c.measured, search, budget).front();
  for (const artifacts::KvLayer& layer : plan.layers) {
    EXPECT_EQ(layer.codec.key_bits, layer.layer_idx == 2 ? 8 : 4);
    EXPECT_EQ(layer.codec.value_bits, layer.codec.key_bits);
  }
}

TEST(KvPlan, ASensitiveSideGetsTheBits) {
  KvSearch search;
  search.split = true;
  const Case c = case_of(search, {{1, 1}, {1, 1000}, {1, 1}, {1000, 1}});
  const std::uint64_t budget = kv_budget(c.layers, search, {.bits = 5});
  const auto plan = make_kv_plans(c.layers, c.measured, search, budget).front();
  for (const artifacts::KvLayer& layer : plan.layers) {
    EXPECT_EQ(layer.codec.key_bits, layer.layer_idx == 3 ? 8 : 4);
    EXPECT_EQ(layer.codec.value_bits, layer.layer_idx == 1 ? 8 : 4);
  }
}

TEST(KvPlan, UniformPlansThatFitAreAmongThem) {
  KvSearch search;
  search.methods = kBoth;
  search.candidate_bits = {3, 4, 8};
  const Case c = case_of(search, {{1, 1}, {1000, 1}});
  const std::uint64_t budget = kv_budget(c.layers, search, {.bits = 4});
  std::vector<std::string> uniform;
  for (const KvPlan& plan :
       make_kv_plans(c.layers, c.measured, search, budget)) {
    const bool equal = std::all_of(
        plan.layers.begin(), plan.layers.end(), [&](const auto& layer) {
          return layer.codec.method == plan.layers.front().codec.method &&
              layer.codec.key_bits == plan.layers.front().codec.key_bits &&
              layer.codec.value_bits == plan.layers.front().codec.key_bits;
        });
    if (equal) {
      uniform.push_back(
          std::string(name_of(plan.layers.front().codec.method)) +
          std::to_string(static_cast<int>(plan.layers.front().codec.key_bits)));
    }
  }
  std::sort(uniform.begin(), uniform.end());
  // Turbo's norm is smaller than affine's scale and bias: affine at 4 bits is
  // above what turbo takes at 4.
  EXPECT_EQ(uniform, (std::vector<std::string>{"affine3", "turbo3", "turbo4"}));
}

TEST(KvBudget, BitsStandForTheBytesOfTheCheapestMethod) {
  KvSearch search;
  search.candidate_bits = {2, 4, 8};
  const Case affine = case_of(search, {{1, 1}, {1, 1}});
  // Two layers of two sides at (4 + 0.25 x (8 - 4)) bits: 5 / 8 of a byte per
  // value and 4 bytes per group.
  EXPECT_EQ(
      kv_budget(affine.layers, search, {.bits = 5}),
      4u * (64 * 64 * 5 / 8 + 64 * 4));
  search.methods = kBoth;
  const Case both = case_of(search, {{1, 1}, {1, 1}});
  EXPECT_EQ(
      kv_budget(both.layers, search, {.bits = 3}),
      4u * (64 * 64 * 3 / 8 + 64 * 2));
  // Turbo has no width above 4 here.
  EXPECT_EQ(
      kv_budget(both.layers, search, {.bits = 5}),
      kv_budget(affine.layers, search, {.bits = 5}));
}

TEST(KvBudget, RefusesWhatNoPlanMeets) {
  KvSearch search;
  Case c = case_of(search, {{1, 1}, {1, 1}});
  const auto refused = [&](const KvTarget& target, const std::string& words) {
    test::expect_error(ErrorKind::InvalidInput, {words}, [&] {
      kv_budget(c.layers, search, target);
    });
  };
  refused({.bits = 3.9}, "found 3.9");
  refused({.bits = 8.1}, "found 8.1");
  refused({.bits = std::numeric_limits<double>::quiet_NaN()}, "found nan");
  refused({}, "found none");
  refused({.bits = 4, .bytes_per_token = 1}, "found both");
  // 4 sides of 64 x 4 / 8 + 4 bytes.
  refused({.bytes_per_token = 143}, "expected at least 144");
  EXPECT_EQ(kv_budget(c.layers, search, {.bytes_per_token = 144}), 144u * 64);
  // A layer that no method can have stays dense, and its bytes count.
  c.layers[1].offers.clear();
  refused({.bytes_per_token = 72 + 255}, "expected at least 328");
  EXPECT_EQ(
      kv_budget(c.layers, search, {.bytes_per_token = 72 + 256}), 72u * 64);
  EXPECT_EQ(kv_budget(c.layers, search, {.bits = 4}), 72u * 64);
}

TEST(KvSearch, IsCheckedAndSorted) {
  KvSearch search;
  search.candidate_bits = {8, 4, 8, 2.5};
  search.methods = {KvMethod::Turbo, KvMethod::Affine, KvMethod::Turbo};
  validate(search);
  EXPECT_EQ(search.candidate_bits, (std::vector<double>{2.5, 4, 8}));
  EXPECT_EQ(search.methods, kBoth);
  const auto refused = [](KvSearch bad, const std::string& words) {
    test::expect_error(
        ErrorKind::InvalidInput, {words}, [&] { validate(bad); });
  };
  refused({.methods = {}}, "--methods");
  refused({.candidate_bits = {}}, "--candidate-bits: none");
  refused({.candidate_bits = {4, 0}}, "found 0");
  refused({.candidate_bits = {-4}}, "found -4");
  refused({.codec = {.group_size = 48}}, "found 48");
}

} // namespace
} // namespace optiq::quant
