#include "optiq/text/reasoning.h"

#include <gtest/gtest.h>

#include "tokenizer_json_for_tests.h"

namespace optiq::text {
namespace {

std::shared_ptr<const Tokenizer> tokenizer_with(
    const std::vector<std::string>& tokens) {
  Json json = byte_level_json({});
  int id = 256;
  for (const std::string& token : tokens) {
    json["added_tokens"].push_back(added_token(id++, token, {"special"}));
  }
  return Tokenizer::parse(json.dump(), "t");
}

std::optional<ReasoningMarkers> markers_of(
    const std::string& source,
    const std::vector<std::string>& tokens) {
  return find_reasoning_markers(
      ChatTemplate::parse(source, "t"), *tokenizer_with(tokens));
}

TEST(Reasoning, MarkersAreThoseOfTheTemplateBeforeThoseOfTheVocabulary) {
  const ReasoningMarkers think{"<think>", "</think>"};
  const ReasoningMarkers channel{"<|channel>thought", "<channel|>"};
  EXPECT_EQ(markers_of("hello", {"<|im_end|>"}), std::nullopt);
  EXPECT_EQ(markers_of("hello", {"<think>", "</think>"}), think);
  EXPECT_EQ(markers_of("hello", {"<think>"}), std::nullopt);
  EXPECT_EQ(markers_of("{{ x.split('</think>')[0] }}", {}), think);
  EXPECT_EQ(markers_of("hello", {"<|channel>", "<channel|>"}), channel);
  EXPECT_EQ(markers_of("a <channel|>", {"<think>", "</think>"}), channel);
}

TEST(Reasoning, OpensWhereThePromptEndsWithTheMarker) {
  const ReasoningMarkers think{"<think>", "</think>"};
  EXPECT_TRUE(opens_reasoning("assistant\n<think>\n", think));
  EXPECT_TRUE(opens_reasoning("<think>", think));
  EXPECT_FALSE(opens_reasoning("", think));
  EXPECT_FALSE(opens_reasoning(" \n", think));
  EXPECT_FALSE(opens_reasoning("<think>\n\n</think>\n\n", think));
  // A message that mentions the marker opens nothing.
  EXPECT_FALSE(opens_reasoning("user\nwhat is <think>?\nassistant\n", think));
}

} // namespace
} // namespace optiq::text
