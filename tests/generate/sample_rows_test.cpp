#include "optiq/generate/sample_rows.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "support/kernel_checks.h"

#include "optiq/base/thread_pool.h"
#include "optiq/kernels/mlx/mlx_device.h"

namespace optiq::generate {
namespace {

using Row = std::vector<float>;

AnswerToken sample_one(
    const Row& row,
    const SamplerOptions& options,
    std::optional<int> n) {
  const LogitsOptions logits;
  const LogitsProcessors processors(logits, {}, {}, 100);
  Sampler sampler(options);
  RowToSample rows[] = {
      {.logits = row,
       .processors = &processors,
       .sampler = &sampler,
       .top_logprobs = n}};
  sample_rows(rows);
  EXPECT_FALSE(rows[0].error);
  return rows[0].token;
}

TEST(SampleRows, LogprobsAreOfTheRowBeforeTemperatureAndFilters) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.f, 3.f);
  Row row(2000);
  for (float& logit : row) {
    logit = normal(random);
  }
  row[7] = row[1500] = 12.f;
  double mass = 0;
  for (const float logit : row) {
    mass += std::exp(double{logit});
  }
  const auto logprob = [&](std::int32_t id) {
    return row[static_cast<std::size_t>(id)] - std::log(mass);
  };
  std::vector<std::int32_t> order(row.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
    return row[static_cast<std::size_t>(a)] > row[static_cast<std::size_t>(b)];
  });
  const auto token =
      sample_one(row, {.temperature = .6f, .top_k = 3, .seed = 4}, 20);
  // 3e-7 of the mass, and roundings to float of numbers below 32.
  EXPECT_NEAR(token.logprob.value(), logprob(token.id), 3e-6);
  ASSERT_EQ(token.top.size(), 20u);
  for (std::size_t i = 0; i < 20; ++i) {
    EXPECT_EQ(token.top[i].id, order[i]);
    EXPECT_NEAR(token.top[i].logprob, logprob(order[i]), 3e-6);
  }
}

TEST(SampleRows, LogprobsOfWhatCannotBeDrawn) {
  const float nan = std::nanf("");
  const auto token = sample_one({-INFINITY, 1.f, nan, 1.f}, {}, 4);
  EXPECT_EQ(token.id, 1);
  EXPECT_NEAR(*token.logprob, -std::log(2.0), 1e-6);
  EXPECT_EQ(token.top.size(), 2u); // the others have no probability
  const auto none = sample_one({nan, -INFINITY}, {.temperature = 1.f}, 0);
  EXPECT_EQ(none.id, 1);
  EXPECT_EQ(none.logprob, -INFINITY);
  const auto certain = sample_one({1.f, INFINITY}, {.temperature = 1.f}, 2);
  EXPECT_EQ(certain.id, 1);
  EXPECT_EQ(certain.logprob, 0.f);
  ASSERT_EQ(certain.top.size(), 2u);
  EXPECT_EQ(certain.top[0].id, 1);
  EXPECT_EQ(certain.top[1].logprob, -INFINITY);
  EXPECT_FALSE(sample_one({1.f, 2.f}, {}, {}).logprob);
}

/** The tokens of many rows over some steps. */
std::vector<AnswerToken> sample_many(int n_threads, bool one_by_one) {
  ThreadPool::shared().resize(n_threads);
  std::mt19937 random(2);
  std::normal_distribution<float> normal(0.f, 4.f);
  constexpr std::size_t kRows = 9;
  const LogitsOptions logits{.presence_penalty = 1.f};
  std::vector<LogitsProcessors> processors;
  std::vector<Sampler> samplers;
  for (std::size_t i = 0; i < kRows; ++i) {
    processors.emplace_back(
        logits,
        std::span<const std::int32_t>(),
        std::span<const std::int32_t>(),
        100);
    samplers.emplace_back(SamplerOptions{
        .temperature = i % 3 == 0 ? 0.f : 1.5f,
        .top_p = i % 2 == 0 ? 1.f : .9f,
        .seed = i});
  }
  std::vector<AnswerToken> tokens;
  for (int step = 0; step < 5; ++step) {
    std::vector<Row> data(kRows, Row(70'000));
    std::vector<RowToSample> rows;
    for (std::size_t i = 0; i < kRows; ++i) {
      for (float& logit : data[i]) {
        logit = normal(random);
      }
      rows.push_back(
          {.logits = data[i],
           .processors = &processors[i],
           .sampler = &samplers[i],
           .top_logprobs = 2});
    }
    if (one_by_one) {
      for (RowToSample& row : rows) {
        sample_rows({&row, 1});
      }
    } else {
      sample_rows(rows);
    }
    for (std::size_t i = 0; i < kRows; ++i) {
      processors[i].push(rows[i].token.id);
      tokens.push_back(rows[i].token);
    }
  }
  ThreadPool::shared().resize(2);
  return tokens;
}

TEST(SampleRows, DoNotDependOnNeighboursOrThreads) {
  const auto tokens = sample_many(1, true);
  for (const auto& others : {sample_many(3, true), sample_many(3, false)}) {
    ASSERT_EQ(others.size(), tokens.size());
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      EXPECT_EQ(others[i].id, tokens[i].id);
      EXPECT_EQ(others[i].logprob, tokens[i].logprob);
      EXPECT_EQ(others[i].top[1].logprob, tokens[i].top[1].logprob);
    }
  }
}

/** A row for each sampler, whose logits lie elsewhere. */
std::vector<RowToSample> rows_of(
    std::vector<Sampler>& samplers,
    const LogitsProcessors& processors) {
  std::vector<RowToSample> rows;
  for (Sampler& sampler : samplers) {
    rows.push_back(
        {.logits = {},
         .processors = &processors,
         .sampler = &sampler,
         .top_logprobs = {},
         .token = {},
         .error = nullptr});
  }
  return rows;
}

/** The tokens that samplers draw from rows, one after the other, on a device.
 */
std::vector<std::int32_t> tokens_on(
    kernels::Device& device,
    const std::vector<SamplerOptions>& options,
    const LogitsOptions& changes) {
  constexpr int kVocab = 5000; // not a multiple of a block
  const auto n = static_cast<int>(options.size());
  std::vector<Sampler> samplers(options.begin(), options.end());
  const LogitsProcessors processors(changes, {}, {}, 100);
  std::vector<std::int32_t> tokens;
  for (unsigned step = 0; step < 40; ++step) {
    const kernels::mx::array logits =
        testing::normal_array({n, kVocab}, step, 2.f);
    std::vector<RowToSample> rows = rows_of(samplers, processors);
    sample_rows(device, device.upload(logits), rows);
    for (const RowToSample& row : rows) {
      EXPECT_FALSE(row.error);
      tokens.push_back(row.token.id);
    }
  }
  return tokens;
}

TEST(SampleRows, RowsThatStayElsewhereGiveTheSameTokens) {
  std::vector<SamplerOptions> options{
      {.temperature = 1.f},
      {.temperature = 0.7f},
      {.temperature = 0.8f, .top_k = 40},
      {.temperature = 0.8f, .top_k = 5000},
      {.temperature = 1.3f, .top_p = 0.9f},
      {.temperature = 1.f, .top_p = 0.999999f},
      {.temperature = 1.f, .min_p = 0.05f},
      {.temperature = 1.f, .typical_p = 0.5f},
      {.temperature = 1.f, .epsilon_cutoff = 3e-4f},
      {.temperature = 1.f, .eta_cutoff = 3e-4f},
      {.temperature = 0.6f, .top_p = 0.95f, .min_p = 0.01f, .top_k = 20},
      {}};
  for (std::size_t i = options.size(); i-- > 0;) {
    options.push_back(options[i]);
    options.back().order = FilterOrder::Transformers;
  }
  for (std::size_t i = 0; i < options.size(); ++i) {
    options[i].seed = i;
  }
  const LogitsOptions none;
  const auto expected = tokens_on(kernels::cpu_device(), options, none);
  EXPECT_EQ(tokens_on(kernels::mlx_device(), options, none), expected);
  EXPECT_EQ(tokens_on(kernels::mlx_device(), {{}, {}}, none).size(), 80u);
  // Penalties change rows: they come to the host.
  const LogitsOptions changes{.logit_bias = {{4999, 9.f}, {17, 8.f}}};
  EXPECT_EQ(
      tokens_on(kernels::mlx_device(), options, changes),
      tokens_on(kernels::cpu_device(), options, changes));
}

/** A row whose largest logit is no number takes the first of the largest. */
TEST(SampleRows, RowsElsewhereWithoutFiniteLogits) {
  constexpr int kVocab = 700;
  std::vector<float> logits(3 * kVocab, -INFINITY);
  std::fill_n(logits.begin(), 300, NAN);
  logits[kVocab + 600] = logits[kVocab + 650] = INFINITY;
  std::fill_n(logits.begin() + 2 * kVocab, kVocab, NAN);
  const LogitsOptions none;
  const LogitsProcessors processors(none, {}, {}, 100);
  std::vector<Sampler> samplers(3, Sampler({.temperature = 1.f}));
  std::vector<RowToSample> rows = rows_of(samplers, processors);
  sample_rows(
      kernels::mlx_device(),
      kernels::mx::array(logits.begin(), {3, kVocab}, kernels::mx::float32),
      rows);
  EXPECT_EQ(rows[0].token.id, 300);
  EXPECT_EQ(rows[1].token.id, 600);
  EXPECT_EQ(rows[2].token.id, 0);
}

} // namespace
} // namespace optiq::generate
