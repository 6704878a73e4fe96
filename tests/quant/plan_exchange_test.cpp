#include "optiq/quant/plan_exchange.h"

#include <cmath>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "optiq/artifacts/module_id.h"
#include "optiq/quant/allocation.h"

namespace optiq::quant {
namespace {

using artifacts::Plan;

constexpr std::size_t kChunks = 24;
constexpr int kLayers = 6;
constexpr std::uint64_t kParameters = 1000;

/** Two kinds of matrices whose errors look alike; beside the others, one of
 * them costs eight times what it costs alone. */
struct World {
  std::vector<AllocationItem> items;
  std::uint64_t budget = 2 * kLayers * kParameters * 4;
  double hidden_factor = 8;
  std::function<double(const Plan&, std::size_t chunk)> noise =
      [](const Plan&, std::size_t) { return 0.0; };

  World() {
    std::mt19937 random(5);
    std::lognormal_distribution<double> scale(0, 0.3);
    for (int layer = 0; layer < kLayers; ++layer) {
      for (const char* part : {"mlp.up_proj", "mlp.down_proj"}) {
        AllocationItem item;
        item.name = "model.layers." + std::to_string(layer) + "." + part;
        const double error = scale(random);
        for (const int bits : {2, 3, 4, 5, 6, 8}) {
          item.options.push_back(
              {bits, kParameters * bits, error * std::exp2(-2.0 * bits)});
        }
        items.push_back(item);
      }
    }
  }

  Plan plan(const ErrorFactors& factors) const {
    std::vector<AllocationItem> scaled = items;
    for (AllocationItem& item : scaled) {
      const auto factor = factors.find(item.name);
      for (WidthOption& option : item.options) {
        option.error *= factor == factors.end() ? 1 : factor->second;
      }
    }
    const Allocation allocation = allocate(scaled, budget);
    EXPECT_LE(allocation.cost, budget);
    Plan plan;
    for (std::size_t i = 0; i < items.size(); ++i) {
      const WidthOption& option = items[i].options[allocation.choice[i]];
      plan.layers.push_back(
          {.name = items[i].name,
           .bits = option.bits,
           .parameters = kParameters,
           .kl = option.error});
    }
    return plan;
  }

  double true_kl(const Plan& plan) const {
    double kl = 0;
    for (const artifacts::LayerBits& layer : plan.layers) {
      kl += *layer.kl * (layer.name.ends_with("down_proj") ? hidden_factor : 1);
    }
    return kl;
  }

  std::vector<double> measure(const Plan& plan, ChunkPart part) const {
    std::vector<double> kl;
    for (const std::size_t chunk : chunks_of(part, kChunks)) {
      // Chunks differ much more than plans do.
      kl.push_back(
          std::exp2(static_cast<double>(chunk % 7)) * true_kl(plan) *
          std::exp(noise(plan, chunk)));
    }
    return kl;
  }

  MeasuredPlan start() const {
    MeasuredPlan start{plan({}), std::vector<double>(kChunks)};
    for (const ChunkPart part :
         {ChunkPart::Screen, ChunkPart::Confirm, ChunkPart::Held}) {
      const auto chunks = chunks_of(part, kChunks);
      const auto kl = measure(start.plan, part);
      for (std::size_t i = 0; i < chunks.size(); ++i) {
        start.chunk_kl[chunks[i]] = kl[i];
      }
    }
    return start;
  }

  Exchange exchange(std::uint64_t max_chunks) const {
    return exchange_widths(
        start(),
        [this](const ErrorFactors& factors) { return plan(factors); },
        [this](const Plan& p, ChunkPart part) { return measure(p, part); },
        max_chunks,
        {});
  }
};

/** A number of the plan's widths and the chunk alone, about normal. */
double noise_of(const Plan& plan, std::size_t chunk, double deviation) {
  std::vector<unsigned> words{static_cast<unsigned>(chunk)};
  for (const artifacts::LayerBits& layer : plan.layers) {
    words.push_back(static_cast<unsigned>(layer.bits));
  }
  std::seed_seq of_both(words.begin(), words.end());
  std::mt19937 random(of_both);
  return std::normal_distribution<double>(0, deviation)(random);
}

TEST(ChunksOf, ThePartsAreAllChunks) {
  for (const std::size_t n : {0u, 1u, 3u, 4u, 24u}) {
    std::vector<int> times(n, 0);
    for (const ChunkPart part :
         {ChunkPart::Screen, ChunkPart::Confirm, ChunkPart::Held}) {
      for (const std::size_t chunk : chunks_of(part, n)) {
        ++times[chunk];
        EXPECT_EQ(part_of(chunk), part);
      }
    }
    EXPECT_EQ(times, std::vector<int>(n, 1));
  }
  EXPECT_EQ(chunks_of(ChunkPart::Screen, 24).size(), 6u);
  EXPECT_EQ(chunks_of(ChunkPart::Confirm, 24).size(), 12u);
}

TEST(PairedDifference, IsTheMeanLogRatioOverTheChunks) {
  const std::vector<double> a{2, 1, 0, 4};
  const std::vector<double> b{1, 1, 5, 1};
  const double log2 = std::log(2.0);
  const std::vector<std::size_t> all{0, 1, 2, 3};
  const PairedDifference found = paired_difference(a, b, all);
  EXPECT_DOUBLE_EQ(
      found.mean, log2); // of 1, 0 and 2 logarithms; 0 says nothing
  EXPECT_DOUBLE_EQ(found.standard_error, log2 / std::sqrt(3));
  const std::vector<std::size_t> one{3};
  EXPECT_DOUBLE_EQ(paired_difference(a, b, one).mean, 2 * log2);
  EXPECT_TRUE(std::isinf(paired_difference(a, b, one).standard_error));
}

TEST(ExchangeWidths, FindsWhatMatricesCostBesideOthers) {
  World world;
  world.noise = [](const Plan& plan, std::size_t chunk) {
    return noise_of(plan, chunk, 0.02);
  };
  const double before = world.true_kl(world.plan({}));
  const Exchange found = world.exchange(1000);
  EXPECT_GT(found.n_kept, 0);
  // The optimum that knows the factor.
  ErrorFactors factors;
  for (const AllocationItem& item : world.items) {
    factors[item.name] = item.name.ends_with("down_proj") ? 8 : 1;
  }
  const double best = world.true_kl(world.plan(factors));
  ASSERT_LT(best, 0.9 * before);
  EXPECT_LT(world.true_kl(found.best.plan), best + 0.2 * (before - best));
  // What is returned belongs to the plan that is returned.
  const auto held = world.measure(found.best.plan, ChunkPart::Held);
  EXPECT_EQ(found.best.chunk_kl[2], held[0]);
}

TEST(ExchangeWidths, EqualArgumentsGiveEqualPlans) {
  World world;
  world.noise = [](const Plan& plan, std::size_t chunk) {
    return noise_of(plan, chunk, 0.1);
  };
  const Exchange first = world.exchange(500);
  const Exchange second = world.exchange(500);
  EXPECT_EQ(first.best.plan, second.best.plan);
  EXPECT_EQ(first.n_tried, second.n_tried);
}

TEST(ExchangeWidths, TheBudgetCountsChunks) {
  World world;
  int measured = 0;
  world.noise = [&](const Plan&, std::size_t) {
    ++measured;
    return 0.0;
  };
  for (const std::uint64_t budget : {0u, 5u, 6u, 17u, 18u, 100u}) {
    const MeasuredPlan start = world.start();
    measured = 0;
    const Exchange found = exchange_widths(
        start,
        [&](const ErrorFactors& factors) { return world.plan(factors); },
        [&](const Plan& p, ChunkPart part) { return world.measure(p, part); },
        budget,
        {});
    EXPECT_LE(found.n_chunks, budget);
    EXPECT_EQ(found.n_chunks, static_cast<std::uint64_t>(measured));
    if (budget < 6) {
      EXPECT_EQ(found.n_tried, 0);
      EXPECT_EQ(found.best.plan, start.plan);
    }
  }
}

TEST(ExchangeWidths, NoiseIsNoReason) {
  int n_tried = 0;
  int n_kept = 0;
  for (int run = 0; run < 20; ++run) {
    World world;
    world.noise = [&](const Plan& plan, std::size_t chunk) {
      // All plans are equally good: what is measured is noise alone.
      return noise_of(plan, 100 * run + chunk, 0.1) -
          std::log(world.true_kl(plan));
    };
    const Exchange found = world.exchange(300);
    n_tried += found.n_tried;
    n_kept += found.n_kept;
  }
  EXPECT_GT(n_tried, 100);
  // Two standard errors, and half of what is left fails on held chunks.
  EXPECT_LT(n_kept, n_tried / 20);
}

TEST(ExchangeWidths, WhatHeldChunksSpeakAgainstIsNotKept) {
  World world;
  const Plan start = world.plan({});
  world.noise = [&](const Plan& plan, std::size_t chunk) {
    return part_of(chunk) == ChunkPart::Held && plan.layers != start.layers
        ? 3.0
        : 0.0;
  };
  const Exchange found = world.exchange(1000);
  EXPECT_GT(found.n_tried, 0);
  EXPECT_EQ(found.n_kept, 0);
  EXPECT_EQ(found.best.plan, start);
}

TEST(ExchangeWidths, FewChunksAreNotEnough) {
  World world;
  MeasuredPlan start = world.start();
  start.chunk_kl.resize(kMinExchangeChunks - 1);
  const Exchange found = exchange_widths(
      start,
      [&](const ErrorFactors& factors) { return world.plan(factors); },
      [&](const Plan&, ChunkPart) -> std::vector<double> {
        ADD_FAILURE();
        return {};
      },
      1000,
      {});
  EXPECT_EQ(found.n_tried, 0);
  EXPECT_EQ(found.best.plan, start.plan);
}

} // namespace
} // namespace optiq::quant
