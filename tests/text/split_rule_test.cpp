#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tokenizer_json_for_tests.h"

#include "optiq/text/split_rule_impl.h"

namespace optiq::text {
namespace {

using Strings = std::vector<std::string>;

const char* const kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char* const kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

Strings split(const SplitRule& rule, std::string_view text) {
  Strings pieces;
  while (!text.empty()) {
    const std::size_t n = match_split_rule(rule, text);
    pieces.emplace_back(text.substr(0, n));
    text.remove_prefix(n);
  }
  return pieces;
}

TEST(SplitRule, Qwen35) {
  const SplitRule* rule = find_split_rule(kQwen35Pattern);
  ASSERT_NE(rule, nullptr);
  const struct {
    std::string text;
    Strings pieces;
  } kCases[] = {
      {"Hello world", {"Hello", " world"}},
      {"it's IT'S i'll x'ſ",
       {"it", "'s", " IT", "'S", " i", "'ll", " x", "'ſ"}},
      {"'lx 'v", {"'lx", " '", "v"}},
      {"12 345", {"1", "2", " ", "3", "4", "5"}},
      {"a  b", {"a", " ", " b"}},
      {"a   ", {"a", "   "}},
      {" ", {" "}},
      {"   ", {"   "}},
      {"  \r\n \n x", {"  \r\n \n", " x"}},
      {"\r\r\n", {"\r\r\n"}},
      {"x.\r\n\ny", {"x", ".\r\n\n", "y"}},
      {" ?!\n", {" ?!\n"}},
      {"\tword", {"\tword"}},
      {"\nword", {"\n", "word"}},
      {"(word", {"(word"}},
      {"((word", {"((", "word"}},
      {"e\u0301a", {"e\u0301a"}},
      {"\u0301", {"\u0301"}},
      {"!\u0301", {"!\u0301"}}, // a mark is part of a word, '!' leads it
      {"\u00a0\u00a0x", {"\u00a0", "\u00a0x"}},
      {"👩‍👩‍👧", {"👩‍👩‍👧"}},
      {"７ x", {"７", " x"}},
  };
  for (const auto& c : kCases) {
    EXPECT_EQ(split(*rule, c.text), c.pieces) << c.text;
  }
}

TEST(SplitRule, WhatTheOthersDoDifferently) {
  const SplitRule* llama3 = find_split_rule(kLlama3Pattern);
  const SplitRule* qwen2 = find_split_rule(kQwen2Pattern);
  ASSERT_NE(llama3, nullptr);
  ASSERT_NE(qwen2, nullptr);
  EXPECT_EQ(split(*llama3, "12345"), (Strings{"123", "45"}));
  EXPECT_EQ(split(*qwen2, "12"), (Strings{"1", "2"}));
  EXPECT_EQ(split(*qwen2, "e\u0301a"), (Strings{"e", "\u0301a"}));
  EXPECT_EQ(
      split(*qwen2, "e\u0301\u0301!\n"), (Strings{"e", "\u0301\u0301!\n"}));
  const SplitRule& gpt2 = gpt2_split_rule();
  EXPECT_EQ(split(gpt2, " 12345 x"), (Strings{" 12345", " x"}));
  EXPECT_EQ(split(gpt2, "IT'S it's"), (Strings{"IT", "'", "S", " it", "'s"}));
  EXPECT_EQ(split(gpt2, "(word"), (Strings{"(", "word"}));
  EXPECT_EQ(split(gpt2, "x.\n\ny"), (Strings{"x", ".", "\n", "\n", "y"}));
  EXPECT_EQ(split(gpt2, "x \n y"), (Strings{"x", " \n", " y"}));
}

TEST(SplitRule, AnotherPatternHasNone) {
  EXPECT_EQ(find_split_rule(R"(\p{L}+)"), nullptr);
  EXPECT_EQ(find_split_rule(""), nullptr);
}

} // namespace
} // namespace optiq::text
