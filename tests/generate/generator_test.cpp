#include "optiq/generate/generator.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/scripted_model.h"
#include "text/tokenizer_json_for_tests.h"

namespace optiq::generate {
namespace {

constexpr std::int32_t kStop = 0;

models::Setup scripted(int vocab_size, testing::ScriptedModel::Script script) {
  return {
      std::make_shared<testing::ScriptedModel>(
          vocab_size, 100, std::move(script)),
      kernels::Compute::Fast};
}

/** Counts down to the stop token; sees absolute positions: at position 90 it
 * stops whatever the token. */
Engine countdown_engine(int prefill_chunk = 512, int max_running = 8) {
  return Engine(
      scripted(
          64,
          [](std::int32_t token, int position) {
            return position == 90 ? kStop : std::max(token - 1, 0);
          }),
      {.prefill_chunk = prefill_chunk, .max_running = max_running});
}

const GenerateOptions kOptions{.max_tokens = 16, .stop_ids = {kStop}};

TEST(Generate, StopsAtAStopTokenAndLeavesItOut) {
  auto engine = countdown_engine();
  const std::int32_t prompt[] = {9, 4};
  std::vector<std::int32_t> streamed;
  const auto completion =
      generate(engine, prompt, kOptions, [&](std::size_t, std::int32_t token) {
        streamed.push_back(token);
      });
  EXPECT_EQ(completion.tokens, (std::vector<std::int32_t>{3, 2, 1}));
  EXPECT_EQ(completion.reason, FinishReason::Stop);
  EXPECT_EQ(streamed, completion.tokens);
}

TEST(Generate, EndsAtMaxTokens) {
  auto engine = countdown_engine();
  const std::int32_t prompt[] = {40};
  const auto completion = generate(engine, prompt, kOptions);
  EXPECT_EQ(completion.tokens.size(), 16u);
  EXPECT_EQ(completion.tokens.back(), 24);
  EXPECT_EQ(completion.reason, FinishReason::Length);
}

TEST(Generate, ShortensAnAnswerThatNobodyChose) {
  auto engine = countdown_engine();
  const std::vector<std::int32_t> prompt(88, 63);
  const auto completion =
      generate(engine, prompt, {.max_tokens = 256, .clamp_max_tokens = true});
  EXPECT_EQ(completion.tokens.size(), 12u);
  EXPECT_EQ(completion.reason, FinishReason::Length);
  test::expect_error(
      ErrorKind::InvalidInput,
      {"88 prompt tokens", "13 new ones", "100 positions"},
      [&] { generate(engine, prompt, {.max_tokens = 13}); });
  test::expect_error(
      ErrorKind::InvalidInput, {"100 prompt tokens", "100 positions"}, [&] {
        generate(
            engine,
            std::vector<std::int32_t>(100, 1),
            {.clamp_max_tokens = true});
      });
}

TEST(Generate, AppliesPenaltiesToPromptAndAnswer) {
  // The script repeats 40; the penalty leaves the other tokens' zeros, of which
  // the first is taken.
  Engine engine(scripted(64, [](std::int32_t, int) { return 40; }), {});
  const std::int32_t prompt[] = {7};
  const auto completion = generate(
      engine, prompt, {.max_tokens = 3, .logits = {.no_repeat_ngram_size = 1}});
  EXPECT_EQ(completion.tokens, (std::vector<std::int32_t>{40, 0, 1}));
}

TEST(Generate, EndsAtStopStrings) {
  // Byte tokens: "dcba...", so that a string spans tokens.
  const auto tokenizer =
      text::Tokenizer::parse(text::byte_level_json({}).dump(), "test");
  auto engine = Engine(
      scripted(256, [](std::int32_t token, int) { return token - 1; }), {});
  const std::int32_t prompt[] = {'h'};
  const auto completion = generate(
      engine,
      prompt,
      {.max_tokens = 16,
       .stop_strings = {"xyz", "ed"},
       .tokenizer = tokenizer});
  EXPECT_EQ(completion.tokens, (std::vector<std::int32_t>{'g', 'f', 'e', 'd'}));
  EXPECT_EQ(completion.reason, FinishReason::Stop);
}

TEST(Generate, PrefillsInChunksAtAbsolutePositions) {
  std::vector<std::int32_t> prompt(85, 63);
  prompt.back() = 30;
  for (const int chunk : {1, 7, 84, 85, 512}) {
    auto engine = countdown_engine(chunk);
    const auto completion =
        generate(engine, prompt, {.max_tokens = 15, .stop_ids = {kStop}});
    // Positions 84..89 predict 29..24; position 90 predicts the stop token.
    EXPECT_EQ(
        completion.tokens, (std::vector<std::int32_t>{29, 28, 27, 26, 25, 24}));
  }
}

TEST(Generate, BatchEqualsEachAlone) {
  std::vector<std::vector<std::int32_t>> prompts;
  for (int i = 1; i < 20; ++i) {
    prompts.emplace_back(static_cast<std::size_t>(3 * i), 1 + (7 * i) % 50);
  }
  for (const int batch : {1, 3, 8, 32}) {
    auto engine = countdown_engine(16, batch);
    std::size_t done = 0;
    const auto completions = generate_batch(
        engine, prompts, kOptions, [&](std::size_t, const Completion&) {
          ++done;
        });
    ASSERT_EQ(completions.size(), prompts.size());
    EXPECT_EQ(done, prompts.size());
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      auto alone = countdown_engine();
      EXPECT_EQ(
          completions[i].tokens, generate(alone, prompts[i], kOptions).tokens);
    }
  }
}

TEST(Generate, CancelKeepsWhatWasGenerated) {
  auto engine = countdown_engine();
  std::atomic<bool> cancel{false};
  GenerateOptions options = kOptions;
  options.cancel = &cancel;
  const std::int32_t prompt[] = {40};
  const auto completion =
      generate(engine, prompt, options, [&](std::size_t, std::int32_t token) {
        cancel = token == 36;
      });
  EXPECT_EQ(completion.tokens, (std::vector<std::int32_t>{39, 38, 37, 36}));
  EXPECT_EQ(completion.reason, FinishReason::Cancelled);
}

TEST(Generate, RefusesWhatCannotRun) {
  auto engine = countdown_engine();
  EXPECT_THROW(generate(engine, {}, kOptions), Error);
  const std::vector<std::int32_t> long_prompt(90, 1);
  EXPECT_THROW(generate(engine, long_prompt, kOptions), Error);
  const std::int32_t prompt[] = {1};
  EXPECT_THROW(generate(engine, prompt, {.max_tokens = 0}), Error);
  EXPECT_THROW(countdown_engine(512, 0), Error);
}

} // namespace
} // namespace optiq::generate
