#include <algorithm>

#include "optiq/base/base64.h"
#include "optiq/text/byte_level_impl.h"
#include "optiq/text/normalizer_impl.h"
#include "optiq/text/unicode_impl.h"
#include "optiq/text/unicode_tables.h"

namespace optiq::text {
namespace {

bool in_ranges(
    std::uint32_t code_point,
    std::span<const CodePointRange> ranges) {
  return std::any_of(ranges.begin(), ranges.end(), [&](const auto& range) {
    return range.first <= code_point && code_point <= range.last;
  });
}

/** Writes the text anew: write(code point, its bytes, out). */
template <typename Write>
std::string map_characters(std::string_view text, Write write) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const DecodedCharacter c = decode_character(text.data() + at);
    write(c.code_point, text.substr(at, c.length), out);
    at += c.length;
  }
  return out;
}

bool is_space(std::uint32_t code_point) {
  return (CharacterClasses::instance().of(code_point) & kIsSpace) != 0;
}

/** The lower case of one character; U+0130 alone has two. */
void append_lower(std::string& out, std::uint32_t code_point) {
  if (code_point == 0x130) {
    out += "i\u0307";
    return;
  }
  const auto runs = unicode_lower_runs();
  const auto behind = std::upper_bound(
      runs.begin(),
      runs.end(),
      code_point,
      [](std::uint32_t c, const CaseRun& run) { return c < run.first; });
  // Runs of every second character lie inside each other, two at a time.
  for (auto run = behind; run != runs.begin() && behind - run < 4;) {
    --run;
    if (code_point <= run->last && (code_point - run->first) % run->step == 0) {
      append_utf8(
          out,
          static_cast<std::uint32_t>(
              static_cast<int>(code_point) + run->distance));
      return;
    }
  }
  append_utf8(out, code_point);
}

} // namespace

std::string replace_all(
    std::string_view text,
    std::string_view pattern,
    std::string_view content) {
  std::string out;
  std::size_t at = 0;
  for (std::size_t hit = text.find(pattern); hit != std::string_view::npos;
       hit = text.find(pattern, at)) {
    out.append(text, at, hit - at);
    out += content;
    at = hit + pattern.size();
  }
  out.append(text, at);
  return out;
}

std::string Normalizer::apply_step(
    NormalizationForm form,
    const std::string& text,
    PatternRun&) {
  return normalize(text, form);
}

std::string Normalizer::apply_step(
    const ReplaceText& step,
    const std::string& text,
    PatternRun& run) {
  std::size_t matches = 0;
  for (std::size_t at = text.find(step.pattern); at != std::string::npos;
       at = text.find(step.pattern, at + step.pattern.size())) {
    ++matches;
  }
  run.expect_room_for(matches * step.content.size());
  return replace_all(text, step.pattern, step.content);
}

std::string Normalizer::apply_step(
    const ReplacePattern& step,
    const std::string& text,
    PatternRun& run) {
  return step.pattern.replace_all(text, step.content, run);
}

std::string Normalizer::apply_step(
    const Prepend& step,
    const std::string& text,
    PatternRun&) {
  return text.empty() ? text : step.text + text;
}

std::string Normalizer::apply_step(
    const Strip& step,
    const std::string& text,
    PatternRun&) {
  std::string_view left = text;
  while (step.left && !left.empty()) {
    const DecodedCharacter c = decode_character(left.data());
    if (!is_space(c.code_point)) {
      break;
    }
    left.remove_prefix(c.length);
  }
  while (step.right && !left.empty()) {
    const std::size_t last = previous_character(left, left.size());
    if (!is_space(decode_character(left.data() + last).code_point)) {
      break;
    }
    left = left.substr(0, last);
  }
  return std::string(left);
}

std::string Normalizer::apply_step(
    const RemoveClass& step,
    const std::string& text,
    PatternRun&) {
  const CharacterClasses& classes = CharacterClasses::instance();
  return map_characters(text, [&](auto c, auto bytes, std::string& out) {
    if ((classes.of(c) & step.bits) == 0) {
      out += bytes;
    }
  });
}

std::string
Normalizer::apply_step(Lowercase, const std::string& text, PatternRun&) {
  return map_characters(
      text, [](auto c, auto, std::string& out) { append_lower(out, c); });
}

std::string
Normalizer::apply_step(BlankSpaces, const std::string& text, PatternRun&) {
  return map_characters(text, [](auto c, auto bytes, std::string& out) {
    out += is_space(c) ? " " : bytes;
  });
}

std::string
Normalizer::apply_step(SpaceIdeographs, const std::string& text, PatternRun&) {
  // What BERT calls Chinese.
  constexpr CodePointRange kIdeographs[] = {
      {0x3400, 0x4DBF},
      {0x4E00, 0x9FFF},
      {0xF900, 0xFAFF},
      {0x20000, 0x2A6DF},
      {0x2A700, 0x2B73F},
      {0x2B740, 0x2B81F},
      {0x2B920, 0x2CEAF},
      {0x2F800, 0x2FA1F}};
  return map_characters(text, [&](auto c, auto bytes, std::string& out) {
    const bool apart = in_ranges(c, kIdeographs);
    out += apart ? " " : "";
    out += bytes;
    out += apart ? " " : "";
  });
}

std::string Normalizer::apply_step(Nmt, const std::string& text, PatternRun&) {
  constexpr CodePointRange kRemoved[] = {
      {0x1, 0x8},
      {0xB, 0xB},
      {0xE, 0x1F},
      {0x7F, 0x7F},
      {0x8F, 0x8F},
      {0x9F, 0x9F}};
  constexpr CodePointRange kBlank[] = {
      {0x9, 0xA},
      {0xC, 0xD},
      {0x1680, 0x1680},
      {0x200B, 0x200F},
      {0x2028, 0x2029},
      {0x2581, 0x2581},
      {0xFEFF, 0xFEFF},
      {0xFFFD, 0xFFFD}};
  return map_characters(text, [&](auto c, auto bytes, std::string& out) {
    if (!in_ranges(c, kRemoved)) {
      out += in_ranges(c, kBlank) ? " " : bytes;
    }
  });
}

std::string
Normalizer::apply_step(SpellBytes, const std::string& text, PatternRun& run) {
  run.expect_room_for(2 * text.size());
  return ByteLevelAlphabet().spell(text);
}

std::string Normalizer::apply_step(
    const Precompiled& step,
    const std::string& text,
    PatternRun&) {
  return apply_charsmap(step.map, text);
}

void Normalizer::add_replace(const JsonField& field, ChainLimits& limits) {
  const JsonField pattern = field["pattern"];
  const JsonField regex = pattern["Regex"];
  const std::string content = field["content"].string();
  const std::string literal = regex.is_null() ? pattern["String"].string() : "";
  if (!literal.empty()) {
    limits.add_replacement(literal, content, field);
    steps_.emplace_back(ReplaceText{literal, content});
    return;
  }
  // Nothing is found everywhere, as the regular expression finds it.
  const std::string source = regex.is_null() ? "" : regex.string();
  limits.add_replacement("x", content + "x", field); // it may match nothing
  steps_.emplace_back(
      ReplacePattern{PatternRegex(source, pattern.path()), content});
}

void Normalizer::add_bert(const JsonField& field) {
  const bool lower = field["lowercase"].boolean_or(true);
  if (field["clean_text"].boolean_or(true)) {
    steps_.emplace_back(RemoveClass{kIsBertControl});
    steps_.emplace_back(BlankSpaces{});
  }
  if (field["handle_chinese_chars"].boolean_or(true)) {
    steps_.emplace_back(SpaceIdeographs{});
  }
  if (field["strip_accents"].boolean_or(lower)) {
    steps_.emplace_back(NormalizationForm{.composed = false});
    steps_.emplace_back(RemoveClass{kIsBertAccent});
  }
  if (lower) {
    steps_.emplace_back(Lowercase{});
  }
}

/** The types without fields; false for another. */
bool Normalizer::add_simple(const std::string& type) {
  constexpr std::pair<std::string_view, NormalizationForm> kForms[] = {
      {"NFC", {.composed = true, .compatible = false}},
      {"NFD", {.composed = false, .compatible = false}},
      {"NFKC", {.composed = true, .compatible = true}},
      {"NFKD", {.composed = false, .compatible = true}}};
  for (const auto& [name, form] : kForms) {
    if (type == name) {
      steps_.emplace_back(form);
      return true;
    }
  }
  if (type == "Lowercase") {
    steps_.emplace_back(Lowercase{});
  } else if (type == "StripAccents") {
    steps_.emplace_back(RemoveClass{kIsAccent});
  } else if (type == "Nmt") {
    steps_.emplace_back(Nmt{});
  } else {
    return false;
  }
  return true;
}

void Normalizer::add(const JsonField& field, ChainLimits& limits) {
  limits.add_step(field);
  const std::string type = field["type"].string();
  if (type == "Replace") {
    add_replace(field, limits);
  } else if (type == "Prepend") {
    steps_.emplace_back(Prepend{field["prepend"].string()});
  } else if (type == "Strip") {
    steps_.emplace_back(
        Strip{field["strip_left"].boolean(), field["strip_right"].boolean()});
  } else if (type == "BertNormalizer") {
    add_bert(field);
  } else if (type == "Precompiled") {
    const JsonField map = field["precompiled_charsmap"];
    const auto bytes = decode_base64(map.string());
    if (!bytes) {
      map.reject("base64");
    }
    steps_.emplace_back(Precompiled{CharsMap::parse(*bytes, map.path())});
  } else if (type == "ByteLevel") {
    limits.add_replacement("x", "xx", field); // most bytes become two
    steps_.emplace_back(SpellBytes{});
  } else if (type == "Sequence") {
    const JsonField parts = field["normalizers"];
    for (std::size_t i = 0; i < parts.array_size(); ++i) {
      add(parts[i], limits);
    }
  } else if (!add_simple(type)) {
    field["type"].refuse("the normalizer " + type);
  }
}

Normalizer Normalizer::parse(const JsonField& field) {
  Normalizer normalizer;
  if (!field.is_null()) {
    ChainLimits limits;
    normalizer.add(field, limits);
  }
  return normalizer;
}

std::string Normalizer::apply(std::string_view text, PatternRun& run) const {
  std::string out(text);
  for (const Step& step : steps_) {
    out = std::visit(
        [&](const auto& one) { return apply_step(one, out, run); }, step);
  }
  return out;
}

} // namespace optiq::text
