#include <utility>

#include "optiq/text/byte_level_impl.h"
#include "optiq/text/normalizer_impl.h"
#include "optiq/text/pre_tokenizer_impl.h"
#include "optiq/text/unicode_impl.h"

namespace optiq::text {
namespace {

std::vector<TextRange> match_rule(
    const SplitRule& rule,
    std::string_view text) {
  std::vector<TextRange> matches;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = at + match_split_rule(rule, text.substr(at));
    matches.push_back({at, end});
    at = end;
  }
  return matches;
}

std::vector<TextRange> match_literal(
    std::string_view literal,
    std::string_view text) {
  std::vector<TextRange> matches;
  for (std::size_t at = text.find(literal); at != std::string_view::npos;
       at = text.find(literal, at + literal.size())) {
    matches.push_back({at, at + literal.size()});
  }
  return matches;
}

std::vector<TextRange> match_numeric(std::string_view text) {
  const CharacterClasses& classes = CharacterClasses::instance();
  std::vector<TextRange> matches;
  for (std::size_t at = 0; at < text.size();) {
    const DecodedCharacter c = decode_character(text.data() + at);
    if ((classes.of(c.code_point) & kIsNumeric) != 0) {
      matches.push_back({at, at + c.length});
    }
    at += c.length;
  }
  return matches;
}

struct Segment {
  TextRange range;
  bool matches;
};

/** The matches and what lies between them. */
std::vector<Segment>
cover(const std::vector<TextRange>& matches, std::size_t size, bool invert) {
  std::vector<Segment> segments;
  std::size_t at = 0;
  for (const TextRange& match : matches) {
    if (at < match.begin) {
      segments.push_back({{at, match.begin}, invert});
    }
    segments.push_back({match, !invert});
    at = match.end;
  }
  if (at < size) {
    segments.push_back({{at, size}, invert});
  }
  return segments;
}

template <typename Visit>
void for_each_piece(const Pieces& pieces, Visit visit) {
  std::size_t begin = 0;
  for (const std::size_t end : pieces.ends) {
    visit(std::string_view(pieces.text).substr(begin, end - begin));
    begin = end;
  }
}

} // namespace

std::vector<TextRange> PreTokenizer::find_matches(
    const Matcher& matcher,
    std::string_view text) {
  if (const auto* rule = std::get_if<const SplitRule*>(&matcher)) {
    return match_rule(**rule, text);
  }
  if (const auto* literal = std::get_if<std::string>(&matcher)) {
    return match_literal(*literal, text);
  }
  if (const auto* regex = std::get_if<PatternRegex>(&matcher)) {
    return regex->find_all(text);
  }
  return match_numeric(text);
}

/** Whether two neighbouring segments stay in one piece. */
bool PreTokenizer::joins(
    Behavior behavior,
    bool left_matches,
    bool right_matches) {
  switch (behavior) {
    case Behavior::MergedWithPrevious:
      return right_matches && !left_matches;
    case Behavior::MergedWithNext:
      return left_matches && !right_matches;
    case Behavior::Contiguous:
      return left_matches == right_matches;
    case Behavior::Removed:
    case Behavior::Isolated:
      return false;
  }
  return false;
}

Pieces PreTokenizer::run(const Split& split, const Pieces& pieces, bool) {
  Pieces out;
  out.ends.reserve(pieces.ends.size());
  for_each_piece(pieces, [&](std::string_view piece) {
    const auto segments =
        cover(find_matches(split.matcher, piece), piece.size(), split.invert);
    for (std::size_t i = 0; i < segments.size(); ++i) {
      const Segment& segment = segments[i];
      if (split.behavior == Behavior::Removed && segment.matches) {
        continue;
      }
      const std::string_view text = piece.substr(
          segment.range.begin, segment.range.end - segment.range.begin);
      const bool joined = i > 0 &&
          joins(split.behavior, segments[i - 1].matches, segment.matches);
      out.text += text;
      if (joined) {
        out.ends.back() = out.text.size();
      } else {
        out.ends.push_back(out.text.size());
      }
    }
  });
  return out;
}

Pieces
PreTokenizer::run(const Prefix& prefix, const Pieces& pieces, bool at_start) {
  Pieces out;
  for_each_piece(pieces, [&](std::string_view piece) {
    const bool wanted = !prefix.first_only || (at_start && out.ends.empty());
    if (wanted && !piece.starts_with(prefix.text)) {
      out.text += prefix.text;
    }
    out.text += piece;
    out.ends.push_back(out.text.size());
  });
  return out;
}

Pieces
PreTokenizer::run(const ReplaceSpaces& step, const Pieces& pieces, bool) {
  Pieces out;
  for_each_piece(pieces, [&](std::string_view piece) {
    out.text += replace_all(piece, " ", step.by);
    out.ends.push_back(out.text.size());
  });
  return out;
}

Pieces PreTokenizer::run(const SpellBytes&, const Pieces& pieces, bool) {
  const ByteLevelAlphabet alphabet;
  Pieces out;
  for_each_piece(pieces, [&](std::string_view piece) {
    out.text += alphabet.spell(piece);
    out.ends.push_back(out.text.size());
  });
  return out;
}

PreTokenizer::Behavior PreTokenizer::parse_behavior(const JsonField& field) {
  constexpr std::pair<const char*, Behavior> kNames[] = {
      {"Removed", Behavior::Removed},
      {"Isolated", Behavior::Isolated},
      {"MergedWithPrevious", Behavior::MergedWithPrevious},
      {"MergedWithNext", Behavior::MergedWithNext},
      {"Contiguous", Behavior::Contiguous},
  };
  const std::string name = field.string();
  for (const auto& [known, behavior] : kNames) {
    if (name == known) {
      return behavior;
    }
  }
  field.reject(
      "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

void PreTokenizer::add_split(const JsonField& field) {
  const JsonField pattern = field["pattern"];
  const Behavior behavior = parse_behavior(field["behavior"]);
  const bool invert = field["invert"].boolean_or(false);
  const JsonField regex = pattern["Regex"];
  if (regex.is_null()) {
    steps_.emplace_back(
        Split{pattern["String"].non_empty_string(), behavior, invert});
  } else if (const SplitRule* rule = find_split_rule(regex.string())) {
    steps_.emplace_back(Split{rule, behavior, invert});
  } else {
    steps_.emplace_back(
        Split{PatternRegex(regex.string(), regex.path()), behavior, invert});
  }
}

void PreTokenizer::add_byte_level(const JsonField& field) {
  if (field["add_prefix_space"].boolean_or(true)) {
    steps_.emplace_back(Prefix{" ", false});
  }
  if (field["use_regex"].boolean_or(true)) {
    steps_.emplace_back(Split{&gpt2_split_rule(), Behavior::Isolated, false});
  }
  steps_.emplace_back(SpellBytes{});
}

void PreTokenizer::add_metaspace(const JsonField& field) {
  const std::string replacement = field["replacement"].character();
  const JsonField scheme_field = field["prepend_scheme"];
  std::string scheme = scheme_field.string_or("always");
  if (!field["add_prefix_space"].boolean_or(true)) {
    scheme = "never"; // the form of older files
  }
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    scheme_field.reject("always, first or never");
  }
  steps_.emplace_back(ReplaceSpaces{replacement});
  if (scheme != "never") {
    steps_.emplace_back(Prefix{replacement, scheme == "first"});
  }
  if (field["split"].boolean_or(true)) {
    steps_.emplace_back(Split{replacement, Behavior::MergedWithNext, false});
  }
}

void PreTokenizer::add(const JsonField& field, ChainLimits& limits) {
  limits.add_step(field);
  const JsonField type_field = field["type"];
  const std::string type = type_field.string();
  if (type == "Sequence") {
    const JsonField parts = field["pretokenizers"];
    for (std::size_t i = 0; i < parts.array_size(); ++i) {
      add(parts[i], limits);
    }
  } else if (type == "Split") {
    add_split(field);
  } else if (type == "ByteLevel") {
    add_byte_level(field);
  } else if (type == "Digits") {
    steps_.emplace_back(Split{
        NumericCharacter{},
        field["individual_digits"].boolean_or(false) ? Behavior::Isolated
                                                     : Behavior::Contiguous,
        false});
  } else if (type == "Metaspace") {
    add_metaspace(field);
  } else {
    type_field.refuse("the pre-tokenizer " + type);
  }
}

PreTokenizer PreTokenizer::parse(
    const JsonField& field,
    bool model_takes_bytes) {
  PreTokenizer pre_tokenizer;
  if (!field.is_null()) {
    ChainLimits limits;
    pre_tokenizer.add(field, limits);
  }
  auto& steps = pre_tokenizer.steps_;
  if (model_takes_bytes && !steps.empty() &&
      std::holds_alternative<SpellBytes>(steps.back())) {
    steps.pop_back();
    pre_tokenizer.byte_level_ = true;
  }
  return pre_tokenizer;
}

Pieces PreTokenizer::apply(std::string text, bool at_start) const {
  Pieces pieces;
  if (!text.empty()) {
    pieces.ends.push_back(text.size());
  }
  pieces.text = std::move(text);
  for (const Step& step : steps_) {
    pieces = std::visit(
        [&](const auto& s) { return run(s, pieces, at_start); }, step);
  }
  return pieces;
}

} // namespace optiq::text
