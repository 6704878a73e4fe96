#include "optiq/generate/logits_processors.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "optiq/base/error.h"
#include "optiq/generate/logit_row.h"

namespace optiq::generate {
namespace {

using Ids = std::vector<std::int32_t>;
constexpr float kInf = INFINITY;

const std::vector<float> kLogits{4, -4, 2, -2, 1, 0};
const Ids kStops{5};

/** The logits after a prompt and the tokens of an answer. */
std::vector<float> applied(
    const LogitsOptions& options,
    const Ids& prompt,
    const Ids& answer = {},
    int max_tokens = 100) {
  LogitsProcessors processors(options, kStops, prompt, max_tokens);
  for (const std::int32_t token : answer) {
    processors.push(token);
  }
  LogitRow row(kLogits);
  processors.apply(row);
  std::vector<float> changed;
  for (std::size_t i = 0; i < kLogits.size(); ++i) {
    changed.push_back(row[static_cast<std::int32_t>(i)]);
  }
  return changed;
}

TEST(LogitsProcessors, LeaveAloneWhatNobodyAskedFor) {
  const LogitsOptions options;
  LogitsProcessors processors(options, kStops, Ids{0, 1}, 10);
  LogitRow row(kLogits);
  processors.apply(row);
  EXPECT_EQ(row.block(0).data(), kLogits.data());
}

TEST(LogitsProcessors, CopyOnlyTheBlocksThatChange) {
  const std::vector<float> logits(3 * kernels::kLogitBlock + 7, 1.f);
  const LogitsOptions options{.presence_penalty = 1.f};
  LogitsProcessors processors(options, kStops, Ids{0, 1}, 10);
  processors.push(static_cast<std::int32_t>(kernels::kLogitBlock));
  LogitRow row(logits);
  processors.apply(row);
  EXPECT_EQ(row.block(0).data(), logits.data());
  EXPECT_NE(row.block(1).data(), logits.data() + kernels::kLogitBlock);
  EXPECT_EQ(row.block(1)[0], 0.f);
  EXPECT_EQ(row.block(1)[1], 1.f);
  EXPECT_EQ(row.block(3).data(), logits.data() + 3 * kernels::kLogitBlock);
}

TEST(LogitsProcessors, BiasIsAddedBeforePenalties) {
  EXPECT_EQ(
      applied(
          {.logit_bias = {{0, 2.f}, {5, -100.f}, {99, 1.f}, {-1, 1.f}}}, {}),
      (std::vector<float>{6, -4, 2, -2, 1, -100}));
  EXPECT_EQ(
      applied(
          {.logit_bias = {{0, 2.f}, {1, 5.f}}, .repetition_penalty = 2.f},
          {0, 1}),
      (std::vector<float>{3, .5f, 2, -2, 1, 0}));
}

TEST(LogitsProcessors, RepetitionPenaltyCountsPromptAndAnswerOnce) {
  EXPECT_EQ(
      applied({.repetition_penalty = 2.f}, {0, 1, 1, 99}, {3, 3}),
      (std::vector<float>{2, -8, 2, -4, 1, 0}));
  EXPECT_EQ(
      applied({.repetition_penalty = .5f}, {0, 1}),
      (std::vector<float>{8, -2, 2, -2, 1, 0}));
}

TEST(LogitsProcessors, PresenceAndFrequencyCountTheAnswerAlone) {
  EXPECT_EQ(
      applied(
          {.presence_penalty = 1.f, .frequency_penalty = .25f},
          {0, 1},
          {2, 2, 3}),
      (std::vector<float>{4, -4, .5f, -3.25f, 1, 0}));
  // After the repetition penalty.
  EXPECT_EQ(
      applied({.repetition_penalty = 2.f, .presence_penalty = -1.f}, {}, {0}),
      (std::vector<float>{3, -4, 2, -2, 1, 0}));
}

TEST(LogitsProcessors, NoNgramOccursTwice) {
  EXPECT_EQ(
      applied({.no_repeat_ngram_size = 2}, {0, 1, 0}, {2, 0}),
      (std::vector<float>{4, -kInf, -kInf, -2, 1, 0}));
  EXPECT_EQ(
      applied({.no_repeat_ngram_size = 1}, {0}, {2}),
      (std::vector<float>{-kInf, -4, -kInf, -2, 1, 0}));
  EXPECT_EQ(applied({.no_repeat_ngram_size = 4}, {0, 1, 0}), kLogits);
}

TEST(LogitsProcessors, BadWordsNeverBecomeComplete) {
  const LogitsOptions options{.bad_words = {{0}, {5}, {1, 2, 3}, {}, {1, 99}}};
  EXPECT_EQ(
      applied(options, {1}), (std::vector<float>{-kInf, -4, 2, -2, 1, 0}));
  EXPECT_EQ(
      applied(options, {1}, {2}),
      (std::vector<float>{-kInf, -4, 2, -kInf, 1, 0}));
}

TEST(LogitsProcessors, LengthsKeepEndsAwayOrForceThem) {
  const std::vector<float> no_end{4, -4, 2, -2, 1, -kInf};
  EXPECT_EQ(applied({.min_new_tokens = 2}, {0}, {1}), no_end);
  EXPECT_EQ(applied({.min_new_tokens = 2}, {0}, {1, 1}), kLogits);
  EXPECT_EQ(applied({.min_length = 3}, {0, 1}), no_end);
  EXPECT_EQ(applied({.min_length = 3}, {0, 1}, {2}), kLogits);
  EXPECT_EQ(applied({.forced_eos = {3}}, {0}, {1}, 3), kLogits);
  EXPECT_EQ(
      applied({.forced_eos = {3, 4}}, {0}, {1, 1}, 3),
      (std::vector<float>{-kInf, -kInf, -kInf, 0, 0, -kInf}));
  EXPECT_EQ(
      applied({.forced_bos = 2}, {0}),
      (std::vector<float>{-kInf, -kInf, 0, -kInf, -kInf, -kInf}));
  EXPECT_EQ(applied({.forced_bos = 2}, {0, 1}), kLogits);
  EXPECT_EQ(applied({.forced_bos = 99}, {0}), kLogits);
}

TEST(LogitsProcessors, SuppressesTokensAlwaysOrFirst) {
  const LogitsOptions options{
      .suppressed = {0, 99, -1}, .suppressed_first = {1}};
  EXPECT_EQ(
      applied(options, {3}), (std::vector<float>{-kInf, -kInf, 2, -2, 1, 0}));
  EXPECT_EQ(
      applied(options, {3}, {3}), (std::vector<float>{-kInf, -4, 2, -2, 1, 0}));
}

TEST(LogitsProcessors, RefuseValuesOutOfRange) {
  for (const LogitsOptions& bad : {
           LogitsOptions{.logit_bias = {{1, kInf}}},
           LogitsOptions{.repetition_penalty = 0.f},
           LogitsOptions{.repetition_penalty = std::nanf("")},
           LogitsOptions{.presence_penalty = 2.5f},
           LogitsOptions{.frequency_penalty = -3.f},
           LogitsOptions{.no_repeat_ngram_size = -1},
           LogitsOptions{.min_length = -1},
       }) {
    EXPECT_THROW(validate(bad), Error);
  }
}

} // namespace
} // namespace optiq::generate
