#include "optiq/generate/answer_text.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "text/tokenizer_json_for_tests.h"

#include "optiq/base/error.h"

namespace optiq::generate {
namespace {

using text::added_token;

/** Every byte is a token, and so are these; the last ones are special. */
const std::vector<std::string>
    kPlain{"ab", "bc", "abc", "\n\n", "<think>", "</think>", "x\n"};
const std::vector<std::string> kSpecials{"<|end|>", "<|channel>", "<channel|>"};
constexpr std::int32_t kFirstPlain = 256;
const std::int32_t kFirstSpecial =
    kFirstPlain + static_cast<std::int32_t>(kPlain.size());

std::shared_ptr<const text::Tokenizer> read_tokenizer() {
  auto json = text::byte_level_json({});
  int id = kFirstPlain;
  for (const std::string& token : kPlain) {
    json["added_tokens"].push_back(added_token(id++, token));
  }
  for (const std::string& token : kSpecials) {
    json["added_tokens"].push_back(added_token(id++, token, {"special"}));
  }
  return text::Tokenizer::parse(json.dump(), "t");
}

std::shared_ptr<const text::Tokenizer> tokenizer() {
  static const auto made = read_tokenizer();
  return made;
}

std::string spelling(std::int32_t token) {
  if (token < kFirstPlain) {
    return {static_cast<char>(token)};
  }
  return token < kFirstSpecial
      ? kPlain[static_cast<std::size_t>(token - kFirstPlain)]
      : kSpecials[static_cast<std::size_t>(token - kFirstSpecial)];
}

/** The longest tokens that the text begins with. */
std::vector<std::int32_t> tokens_of(std::string_view text) {
  std::vector<std::int32_t> tokens;
  while (!text.empty()) {
    std::int32_t best = static_cast<unsigned char>(text[0]);
    for (std::int32_t t = kFirstPlain;
         t < kFirstSpecial + static_cast<std::int32_t>(kSpecials.size());
         ++t) {
      if (text.starts_with(spelling(t)) &&
          spelling(t).size() > spelling(best).size()) {
        best = t;
      }
    }
    tokens.push_back(best);
    text.remove_prefix(spelling(best).size());
  }
  return tokens;
}

std::vector<std::int32_t> bytes_of(std::string_view text) {
  std::vector<std::int32_t> tokens;
  for (const char byte : text) {
    tokens.push_back(static_cast<unsigned char>(byte));
  }
  return tokens;
}

const text::ReasoningMarkers kThink{"<think>", "</think>"};
const text::ReasoningMarkers kChannel{"<|channel>thought", "<channel|>"};

AnswerText::Piece whole_of(
    const AnswerTextOptions& options,
    const std::vector<std::int32_t>& tokens) {
  AnswerText answer(tokenizer(), options);
  AnswerText::Piece whole;
  const auto add = [&](const AnswerText::Piece& piece) {
    whole.content += piece.content;
    whole.reasoning += piece.reasoning;
    if (piece.stopped) {
      EXPECT_FALSE(whole.stopped);
      whole.stopped = true;
      whole.stop_string = piece.stop_string;
    }
  };
  for (const std::int32_t token : tokens) {
    add(answer.push(token));
  }
  add(answer.finish());
  return whole;
}

/** The text that every token gives out, "|" between them. */
std::string pieces_of(
    const AnswerTextOptions& options,
    const std::vector<std::int32_t>& tokens) {
  AnswerText answer(tokenizer(), options);
  std::string pieces;
  for (const std::int32_t token : tokens) {
    const auto piece = answer.push(token);
    pieces += piece.content + (piece.stopped ? "." : "") + "|";
  }
  return pieces + answer.finish().content;
}

TEST(AnswerText, GivesOutWholeCharacters) {
  EXPECT_EQ(pieces_of({}, bytes_of("aé€!")), "a||é|||€|!|");
  EXPECT_EQ(pieces_of({}, bytes_of("a\xe2\x82")), "a|||\uFFFD");
}

TEST(AnswerText, HoldsBackWhatMayBeginAStopString) {
  EXPECT_EQ(
      pieces_of({.stop_strings = {"STOP"}}, bytes_of("aSTObSTOPc")),
      "a||||STOb||||.||");
  EXPECT_EQ(
      pieces_of({.stop_strings = {"STOP"}}, bytes_of("aSSTO")), "a||S|||STO");
  EXPECT_EQ(pieces_of({.stop_strings = {"aab"}}, bytes_of("aaab")), "||a|.|");
  EXPECT_EQ(
      pieces_of(
          {.stop_strings = {"STOP"}, .keep_stop_string = true},
          bytes_of("aSTOPc")),
      "a||||STOP.||");
}

TEST(AnswerText, EndsAtTheStringThatIsCompleteFirst) {
  const auto stopped = [](std::vector<std::string> stops, const char* text) {
    const auto whole =
        whole_of({.stop_strings = std::move(stops)}, tokens_of(text));
    return whole.content + "|" + whole.stop_string;
  };
  EXPECT_EQ(stopped({"xabcd", "bc"}, "xabcd"), "xa|bc");
  EXPECT_EQ(stopped({"bc", "abc"}, "xabcd"), "x|abc");
  EXPECT_EQ(stopped({"nd"}, "and more"), "a|nd");
  EXPECT_EQ(stopped({"\n"}, "one\n\ntwo"), "one|\n");
  EXPECT_EQ(stopped({"é"}, "caf\xc3\xa9s"), "caf|é");
  EXPECT_EQ(stopped({"\uFFFD"}, "a\xe2\x82"), "a|\uFFFD");
  EXPECT_EQ(stopped({"zz"}, "abc"), "abc|");
}

TEST(AnswerText, SpecialTokensAreNoTextButStop) {
  EXPECT_EQ(whole_of({}, tokens_of("a<|end|>b")).content, "ab");
  const auto whole =
      whole_of({.stop_strings = {"a<|end|>"}}, tokens_of("xa<|end|>b"));
  EXPECT_EQ(whole.content, "x");
  EXPECT_TRUE(whole.stopped);
  EXPECT_EQ(
      whole_of(
          {.stop_strings = {"<|end|>"}, .keep_stop_string = true},
          tokens_of("xa<|end|>b"))
          .content,
      "xa");
}

struct SplitCase {
  const char* text;
  const char* reasoning;
  const char* content;
  bool starts_in_reasoning = false;
};

void expect_split(
    const text::ReasoningMarkers& markers,
    const std::vector<SplitCase>& cases) {
  for (const SplitCase& c : cases) {
    SCOPED_TRACE(c.text);
    const auto whole = whole_of(
        {.reasoning = markers, .starts_in_reasoning = c.starts_in_reasoning},
        tokens_of(c.text));
    EXPECT_EQ(whole.reasoning, c.reasoning);
    EXPECT_EQ(whole.content, c.content);
  }
}

TEST(AnswerText, ReasoningIsSplitOff) {
  expect_split(
      kThink,
      {
          {"<think>\nhm\n</think>\n\nhi", "hm", "hi"},
          {" \n<think>hm</think>hi\n", "hm", "hi\n"},
          {"hm\n</think>\n\nhi", "hm", "hi", true},
          {"\n\nhm\n\nhm\n", "hm\n\nhm\n", "", true},
          {"<think>\n\n</think>\n\nhi", "", "hi"},
          {"\n hi", "", "\n hi"},
          {"hi <think>x</think>", "", "hi <think>x</think>"},
          {"<think>a</think><think>b", "a", "<think>b"},
          {"<thin", "", "<thin"},
          {"<think>a</thin", "a</thin", ""},
          {"", "", ""},
      });
}

TEST(AnswerText, SpecialMarkersOpenReasoningAnywhere) {
  expect_split(
      kChannel,
      {
          {"<|channel>thought\nhm<channel|>hi", "hm", "hi"},
          {"hi<|channel>thought\nhm<channel|>\nho", "hm", "hiho"},
          {"<|channel>final\nhi", "", "final\nhi"},
          {"a<|channel>though<|end|>t", "", "athought"},
      });
  // Spelled in other tokens, it is text.
  const auto whole = whole_of(
      {.reasoning = kChannel}, bytes_of("a<|channel>thought\nhm<channel|>"));
  EXPECT_EQ(whole.content, "a<|channel>thought\nhm<channel|>");
}

TEST(AnswerText, StopStringsEndReasoningToo) {
  const auto whole = whole_of(
      {.stop_strings = {"</think>"}, .reasoning = kThink},
      tokens_of("<think>\nhm\n</think>hi"));
  EXPECT_EQ(whole.reasoning, "hm\n");
  EXPECT_EQ(whole.content, "");
  EXPECT_TRUE(whole.stopped);
}

TEST(AnswerText, CountsTokensOfReasoning) {
  AnswerText answer(tokenizer(), {.reasoning = kThink});
  for (const std::int32_t token : tokens_of("<think>hm</think>hi")) {
    answer.push(token);
  }
  EXPECT_EQ(answer.reasoning_tokens(), 4);
}

TEST(AnswerText, RefusesStopStringsThatAreNoText) {
  for (const AnswerTextOptions& bad : {
           AnswerTextOptions{.stop_strings = {"a", ""}},
           AnswerTextOptions{.stop_strings = {"\xc3"}},
           AnswerTextOptions{.starts_in_reasoning = true},
       }) {
    EXPECT_THROW(AnswerText(tokenizer(), bad), Error);
  }
}

/** Text and, of each byte, whether it is of a special token. */
struct Marked {
  std::string bytes;
  std::string is_special;

  std::string visible(std::size_t begin, std::size_t end) const {
    std::string text;
    for (std::size_t i = begin; i < end; ++i) {
      text += is_special[i] == '1' ? "" : std::string(1, bytes[i]);
    }
    return text;
  }
};

std::string without_newlines(std::string text, bool front, bool back) {
  while (front && text.starts_with('\n')) {
    text.erase(0, 1);
  }
  while (back && text.ends_with('\n')) {
    text.pop_back();
  }
  return text;
}

/** The definitions, on the whole text at once. */
AnswerText::Piece expected(
    const AnswerTextOptions& options,
    const std::vector<std::int32_t>& tokens) {
  Marked all;
  for (const std::int32_t token : tokens) {
    all.bytes += spelling(token);
    all.is_special +=
        std::string(spelling(token).size(), token < kFirstSpecial ? '0' : '1');
  }
  AnswerText::Piece whole;
  std::size_t end = all.bytes.size();
  for (std::size_t e = 1; e <= all.bytes.size() && !whole.stopped; ++e) {
    for (const std::string& stop : options.stop_strings) {
      if (all.bytes.substr(0, e).ends_with(stop) &&
          stop.size() > whole.stop_string.size()) {
        whole.stopped = true;
        whole.stop_string = stop;
        end = options.keep_stop_string ? e : e - stop.size();
      }
    }
  }
  all = {all.bytes.substr(0, end), all.is_special.substr(0, end)};
  if (!options.reasoning) {
    whole.content = all.visible(0, end);
    return whole;
  }
  const auto& [open, close] = *options.reasoning;
  bool in_reasoning = options.starts_in_reasoning;
  bool is_first = !in_reasoning;
  bool after_close = false;
  std::size_t at = 0;
  while (true) {
    if (in_reasoning) {
      const std::size_t found = all.bytes.find(close, at);
      const bool closed = found != std::string::npos;
      whole.reasoning +=
          without_newlines(all.visible(at, closed ? found : end), true, closed);
      if (!closed) {
        return whole;
      }
      at = found + close.size();
      in_reasoning = false;
      after_close = true;
      continue;
    }
    std::size_t found = at - 1;
    bool opens = false;
    do {
      found = all.bytes.find(open, found + 1);
      opens = found != std::string::npos &&
          (all.is_special[found] == '1' ||
           (is_first &&
            all.visible(at, found).find_first_not_of(" \t\r\n") ==
                std::string::npos));
    } while (found != std::string::npos && !opens);
    const std::string text = all.visible(at, opens ? found : end);
    const bool is_blank =
        text.find_first_not_of(" \t\r\n") == std::string::npos;
    whole.content += opens && is_first && is_blank
        ? ""
        : without_newlines(text, after_close, false);
    if (!opens) {
      return whole;
    }
    is_first = false;
    at = found + open.size();
    in_reasoning = true;
  }
}

TEST(AnswerText, EqualsTheDefinitionsHoweverTokensCutTheText) {
  std::mt19937 random(5);
  const auto below = [&](std::size_t n) { return random() % n; };
  const std::vector<std::string> parts{
      "a",
      "b",
      "c",
      "é",
      "\n",
      " ",
      "<",
      "think>",
      "/",
      "<think>",
      "</think>",
      "<|channel>",
      "thought",
      "<channel|>",
      "<|end|>",
      "€",
      "|>"};
  const auto random_text = [&](std::size_t most) {
    std::string text;
    for (std::size_t n = below(most) + 1; n > 0; --n) {
      text += parts[below(parts.size())];
    }
    return text;
  };
  for (int round = 0; round < 3000; ++round) {
    const std::string text = random_text(20);
    AnswerTextOptions options{.keep_stop_string = below(2) == 0};
    for (std::size_t n = below(4); n > 0; --n) {
      options.stop_strings.push_back(random_text(3));
    }
    if (below(3) > 0) {
      options.reasoning = below(2) == 0 ? kThink : kChannel;
      options.starts_in_reasoning = below(4) == 0;
    }
    for (const auto& tokens : {bytes_of(text), tokens_of(text)}) {
      const auto wanted = expected(options, tokens);
      const auto whole = whole_of(options, tokens);
      ASSERT_EQ(whole.content, wanted.content) << text;
      ASSERT_EQ(whole.reasoning, wanted.reasoning) << text;
      ASSERT_EQ(whole.stop_string, wanted.stop_string) << text;
    }
  }
}

} // namespace
} // namespace optiq::generate
