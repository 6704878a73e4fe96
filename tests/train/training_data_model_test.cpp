#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"
#include "support/tiny_model.h"

#include "optiq/train/training_data.h"

/** Masks, token by token, with the tokenizer and template of tiny-qwen3.5. */
namespace optiq::train {
namespace {

TrainingEncoder make_encoder() {
  const auto path = testing::tiny_model_path();
  return {
      .tokenizer = text::Tokenizer::load(path),
      .chat = text::ChatTemplate::load(path)};
}

std::vector<Example> load(
    const std::string& lines,
    const TrainingDataOptions& options = {},
    const TrainingEncoder& encoder = make_encoder()) {
  const test::ScratchFolder folder;
  test::write_file(folder.path() / "train.jsonl", lines);
  return load_examples(folder.path() / "train.jsonl", encoder, options)
      .examples;
}

/** The whole text of an example, what is learned in brackets. */
std::string shown(const Example& example) {
  const auto tokenizer = make_encoder().tokenizer;
  std::string text = tokenizer->decode({example.tokens.front()}, false);
  bool is_learned = false;
  for (std::size_t t = 0; t < example.labels.size(); ++t) {
    if ((example.weights[t] != 0.f) != is_learned) {
      text += is_learned ? "]" : "[";
      is_learned = !is_learned;
    }
    text += tokenizer->decode({example.labels[t]}, false);
    if (t + 1 < example.tokens.size()) {
      EXPECT_EQ(example.labels[t], example.tokens[t + 1]);
    }
  }
  return is_learned ? text + "]" : text;
}

const std::string kTwoTurns =
    R"({"messages": [{"role": "user", "content": "2+2?"},)"
    R"({"role": "assistant", "content": "4"},)"
    R"({"role": "user", "content": "3+3?"},)"
    R"({"role": "assistant", "content": "6"}]})";

TEST(TrainingData, LearnsAnswersWithTheirEndAndNothingBehind) {
  const auto examples = load(kTwoTurns + "\n");
  ASSERT_EQ(examples.size(), 1U);
  EXPECT_EQ(
      shown(examples[0]),
      "<|im_start|>user\n2+2?<|im_end|>\n"
      "<|im_start|>assistant\n[4<|im_end|>]\n"
      "<|im_start|>user\n3+3?<|im_end|>\n"
      "<|im_start|>assistant\n[6<|im_end|>]\n");
}

TEST(TrainingData, LearnsTheLastAnswerOrAll) {
  EXPECT_EQ(
      shown(load(kTwoTurns, {.learned = LearnedPart::LastAnswer})[0]),
      "<|im_start|>user\n2+2?<|im_end|>\n"
      "<|im_start|>assistant\n4<|im_end|>\n"
      "<|im_start|>user\n3+3?<|im_end|>\n"
      "<|im_start|>assistant\n[6<|im_end|>]\n");
  EXPECT_EQ(
      shown(load(kTwoTurns, {.learned = LearnedPart::Everything})[0]),
      "<|im_start|>[user\n2+2?<|im_end|>\n"
      "<|im_start|>assistant\n4<|im_end|>]\n["
      "<|im_start|>user\n3+3?<|im_end|>\n"
      "<|im_start|>assistant\n6<|im_end|>]\n");
}

TEST(TrainingData, PromptAndCompletionAreAChat) {
  const auto examples = load(
      "\n"
      R"({"prompt": "2+2?", "completion": "4"})"
      "\n  \n"
      R"({"prompt": "a", "completion": "b", "other": 1})");
  ASSERT_EQ(examples.size(), 2U);
  EXPECT_EQ(
      shown(examples[0]),
      "<|im_start|>user\n2+2?<|im_end|>\n"
      "<|im_start|>assistant\n[4<|im_end|>]\n");
}

TEST(TrainingData, TextsAreLearnedWholeWithTheirEnd) {
  TrainingEncoder encoder = make_encoder();
  encoder.end_of_text = encoder.tokenizer->token_to_id("<|im_end|>");
  encoder.chat.reset();
  const auto examples = load(R"({"text": "one two"})", {}, encoder);
  const auto tokens = encoder.tokenizer->encode("one two", true);
  ASSERT_EQ(examples[0].tokens, tokens);
  EXPECT_EQ(examples[0].labels.back(), *encoder.end_of_text);
  EXPECT_EQ(examples[0].weights, std::vector<float>(tokens.size(), 1.f));
}

TEST(TrainingData, PromptsAndAnswersAreEncodedApart) {
  // As when an answer is generated: no token spans the border, whatever the
  // answer begins with.
  const auto encoder = make_encoder();
  const auto examples =
      load(R"({"prompt": "x", "completion": "\n\n7"})", {}, encoder);
  const auto prompt = encoder.tokenizer->encode(
      "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n", false);
  ASSERT_GE(examples[0].tokens.size(), prompt.size());
  EXPECT_EQ(
      std::vector(
          examples[0].tokens.begin(),
          examples[0].tokens.begin() +
              static_cast<std::ptrdiff_t>(prompt.size())),
      prompt);
  EXPECT_EQ(examples[0].weights[prompt.size() - 2], 0.f);
  EXPECT_EQ(examples[0].weights[prompt.size() - 1], 1.f);
}

TEST(TrainingData, LongLinesAreCut) {
  const auto whole = load(kTwoTurns)[0];
  const auto cut = load(
      kTwoTurns, {.max_tokens = static_cast<int>(whole.tokens.size()) - 5});
  EXPECT_EQ(cut[0].tokens.size(), whole.tokens.size() - 6);
  EXPECT_EQ(cut[0].labels.size(), cut[0].tokens.size());
}

TEST(TrainingData, RefusesByFileAndLine) {
  const auto refuse = [](ErrorKind kind,
                         std::initializer_list<std::string> parts,
                         const std::string& lines,
                         const TrainingDataOptions& options = {}) {
    test::expect_error(kind, parts, [&] { load(lines, options); });
  };
  const std::string good = R"({"text": "one two"})"
                           "\n";
  refuse(ErrorKind::InvalidInput, {"train.jsonl", "no lines"}, "\n \n");
  refuse(ErrorKind::Corrupt, {"train.jsonl, line 2"}, good + "{");
  refuse(
      ErrorKind::InvalidInput,
      {"train.jsonl, line 3", "'messages'"},
      good + good + R"({"question": "?"})");
  refuse(ErrorKind::InvalidInput, {"line 1", "'messages'"}, "[1, 2]");
  refuse(
      ErrorKind::InvalidInput,
      {"line 2", "role"},
      good + R"({"messages": [{"content": "?"}]})");
  refuse(ErrorKind::InvalidInput, {"line 1", "a list"}, R"({"messages": []})");
  refuse(ErrorKind::Corrupt, {"line 1", "completion"}, R"({"prompt": "?"})");
  refuse(
      ErrorKind::InvalidInput,
      {"line 1", "nothing to learn"},
      R"({"messages": [{"role": "user", "content": "?"}]})");
  refuse(
      ErrorKind::InvalidInput,
      {"line 1", "nothing to learn", "at most 4"},
      kTwoTurns,
      {.max_tokens = 4});
}

TEST(TrainingData, RefusesTemplatesThatRewriteWhatCameBefore) {
  TrainingEncoder encoder = make_encoder();
  // Earlier answers lose their text, as reasoning does in many templates.
  encoder.chat = text::ChatTemplate::parse(
      "{% for m in messages %}<|im_start|>{{ m.role }}\n"
      "{% if loop.last or m.role == 'user' %}{{ m.content }}{% endif %}"
      "<|im_end|>\n{% endfor %}"
      "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
      "test");
  test::expect_error(ErrorKind::InvalidInput, {"line 1", "earlier turns"}, [&] {
    load(kTwoTurns, {}, encoder);
  });
  // The last answer is where it was generated.
  EXPECT_EQ(
      shown(load(kTwoTurns, {.learned = LearnedPart::LastAnswer}, encoder)[0]),
      "<|im_start|>user\n2+2?<|im_end|>\n"
      "<|im_start|>assistant\n<|im_end|>\n"
      "<|im_start|>user\n3+3?<|im_end|>\n"
      "<|im_start|>assistant\n[6<|im_end|>]\n");
}

} // namespace
} // namespace optiq::train
