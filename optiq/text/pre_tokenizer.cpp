#include <algorithm>
#include <utility>

#include "optiq/text/byte_level_impl.h"
#include "optiq/text/pre_tokenizer_impl.h"
#include "optiq/text/unicode_impl.h"
#include "optiq/text/unicode_properties_impl.h"

namespace optiq::text {
namespace {

void match_rule(
    const SplitRule& rule,
    std::string_view text,
    std::vector<TextRange>& matches) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = at + match_split_rule(rule, text.substr(at));
    matches.push_back({at, end});
    at = end;
  }
}

void match_literal(
    std::string_view literal,
    std::string_view text,
    std::vector<TextRange>& matches) {
  for (std::size_t at = text.find(literal); at != std::string_view::npos;
       at = text.find(literal, at + literal.size())) {
    matches.push_back({at, at + literal.size()});
  }
}

void match_class(
    std::uint16_t bits,
    std::string_view text,
    std::vector<TextRange>& matches) {
  const CharacterClasses& classes = CharacterClasses::instance();
  for (std::size_t at = 0; at < text.size();) {
    const DecodedCharacter c = decode_character(text.data() + at);
    if ((classes.of(c.code_point) & bits) != 0) {
      matches.push_back({at, at + c.length});
    }
    at += c.length;
  }
}

/** Writes the text of the pieces anew: write(piece, is_first, out) appends one
 * of them. */
template <typename Write>
void rewrite(Pieces& pieces, const PatternRun& run, Write write) {
  std::string out;
  out.reserve(pieces.text.size());
  for (TextRange& range : pieces.ranges) {
    const std::size_t begin = out.size();
    write(
        std::string_view(pieces.text)
            .substr(range.begin, range.end - range.begin),
        &range == pieces.ranges.data(),
        out);
    run.expect_room_for(out.size());
    range = {begin, out.size()};
  }
  pieces.text = std::move(out);
}

/** Cuts every piece: cut(piece, begin, out) appends the parts of the piece that
 * begins at `begin`, some perhaps empty. */
template <typename Cut>
void cut_pieces(Pieces& pieces, Cut cut) {
  std::vector<TextRange> out;
  out.reserve(pieces.ranges.size());
  for (const TextRange& range : pieces.ranges) {
    const std::size_t kept = out.size();
    cut(std::string_view(pieces.text)
            .substr(range.begin, range.end - range.begin),
        range.begin,
        out);
    out.erase(
        std::remove_if(
            out.begin() + static_cast<std::ptrdiff_t>(kept),
            out.end(),
            [](const TextRange& part) { return part.begin == part.end; }),
        out.end());
  }
  pieces.starts_input = pieces.starts_input && !out.empty() &&
      out[0].begin == pieces.ranges[0].begin;
  pieces.ranges = std::move(out);
}

std::uint32_t number_of_script(std::string_view name) {
  const auto names = unicode_script_names();
  const auto found =
      std::find_if(names.begin(), names.end(), [&](const ScriptName& row) {
        return row.name == name;
      });
  return static_cast<std::uint32_t>(found - names.begin());
}

/** The script by whose changes UnicodeScripts cuts; nothing for characters that
 * go with every script. */
std::optional<std::uint32_t> cutting_script(std::uint32_t code_point) {
  static const std::uint32_t han = number_of_script("Han");
  static const std::uint32_t hiragana = number_of_script("Hiragana");
  static const std::uint32_t katakana = number_of_script("Katakana");
  if (code_point == ' ') {
    return std::nullopt;
  }
  std::uint32_t script = script_of(code_point);
  if (script == hiragana || script == katakana || code_point == 0x30FC) {
    script = han; // as SentencePiece has it: Japanese mixes the three
  }
  const auto changes = unicode_cutting_scripts();
  const auto behind = std::upper_bound(
      changes.begin(),
      changes.end(),
      code_point,
      [](std::uint32_t c, const ScriptRange& range) {
        return c < range.first;
      });
  if (behind != changes.begin() && code_point <= std::prev(behind)->last) {
    script = std::prev(behind)->script;
  }
  return script == unicode_script_names().size() ? std::nullopt
                                                 : std::optional(script);
}

} // namespace

/** The matches, and what lies between them, of which some may be empty. */
void PreTokenizer::find_matches(
    const Split& split,
    std::string_view text,
    Scratch& scratch) {
  auto& matches = scratch.matches;
  matches.clear();
  if (const auto* rule = std::get_if<const SplitRule*>(&split.matcher)) {
    match_rule(**rule, text, matches);
  } else if (const auto* literal = std::get_if<std::string>(&split.matcher)) {
    match_literal(*literal, text, matches);
  } else if (const auto* one = std::get_if<CharacterClass>(&split.matcher)) {
    match_class(one->bits, text, matches);
  } else {
    std::get<PatternRegex>(split.matcher).find_all(text, scratch.run, matches);
  }
  auto& segments = scratch.segments;
  segments.clear();
  std::size_t at = 0;
  for (const TextRange& match : matches) {
    if (at < match.begin) {
      segments.push_back({{at, match.begin}, split.invert});
    }
    segments.push_back({match, !split.invert});
    at = match.end;
  }
  if (at < text.size()) {
    segments.push_back({{at, text.size()}, split.invert});
  }
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

void PreTokenizer::apply_step(
    const Split& split,
    Pieces& pieces,
    Scratch& scratch) const {
  const auto cut = [&](std::string_view piece,
                       std::size_t begin,
                       std::vector<TextRange>& out) {
    find_matches(split, piece, scratch);
    const auto& segments = scratch.segments;
    for (std::size_t i = 0; i < segments.size(); ++i) {
      const auto& [range, matches] = segments[i];
      if (split.behavior == Behavior::Removed && matches) {
        continue;
      }
      if (i > 0 && joins(split.behavior, segments[i - 1].matches, matches)) {
        out.back().end = begin + range.end;
      } else {
        out.push_back({begin + range.begin, begin + range.end});
      }
    }
  };
  cut_pieces(pieces, cut);
}

void PreTokenizer::apply_step(const FixedLength& step, Pieces& pieces, Scratch&)
    const {
  cut_pieces(
      pieces,
      [&](std::string_view piece,
          std::size_t begin,
          std::vector<TextRange>& out) {
        std::size_t from = 0;
        std::size_t n = 0;
        for (std::size_t at = 0; at < piece.size();) {
          at += decode_character(piece.data() + at).length;
          if (++n == step.characters || at == piece.size()) {
            out.push_back({begin + from, begin + at});
            from = at;
            n = 0;
          }
        }
      });
}

void PreTokenizer::apply_step(const Scripts&, Pieces& pieces, Scratch&) const {
  cut_pieces(
      pieces,
      [](std::string_view piece,
         std::size_t begin,
         std::vector<TextRange>& out) {
        std::optional<std::uint32_t> last;
        std::size_t from = 0;
        for (std::size_t at = 0; at < piece.size();) {
          const DecodedCharacter c = decode_character(piece.data() + at);
          const auto script = cutting_script(c.code_point);
          if (script && last != script) {
            if (last) {
              out.push_back({begin + from, begin + at});
            }
            // What comes before the first script is no piece in the original.
            from = at;
            last = script;
          }
          at += c.length;
        }
        if (last) {
          out.push_back({begin + from, begin + piece.size()});
        }
      });
}

void PreTokenizer::apply_step(
    const Prefix& prefix,
    Pieces& pieces,
    Scratch& scratch) const {
  rewrite(
      pieces,
      scratch.run,
      [&](std::string_view piece, bool first, std::string& out) {
        const bool wanted =
            !prefix.first_only || (first && pieces.starts_input);
        if (wanted && !piece.starts_with(prefix.text)) {
          out += prefix.text;
        }
        out += piece;
      });
}

void PreTokenizer::apply_step(
    const ReplaceSpaces& step,
    Pieces& pieces,
    Scratch& scratch) const {
  rewrite(
      pieces, scratch.run, [&](std::string_view piece, bool, std::string& out) {
        for (const char c : piece) {
          if (c == ' ') {
            out += step.by;
          } else {
            out += c;
          }
        }
      });
}

void PreTokenizer::apply_step(
    const SpellBytes&,
    Pieces& pieces,
    Scratch& scratch) const {
  const ByteLevelAlphabet alphabet;
  rewrite(
      pieces, scratch.run, [&](std::string_view piece, bool, std::string& out) {
        for (const char c : piece) {
          out += alphabet.spelling(static_cast<std::uint8_t>(c));
        }
      });
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
  const auto add = [&](Matcher matcher) {
    steps_.emplace_back(Split{std::move(matcher), behavior, invert});
  };
  const JsonField regex = pattern["Regex"];
  if (regex.is_null()) {
    const std::string literal = pattern["String"].string();
    // Nothing is found everywhere, as the regular expression finds it.
    literal.empty() ? add(PatternRegex("", pattern.path())) : add(literal);
  } else if (const SplitRule* rule = find_split_rule(regex.string())) {
    add(rule);
  } else {
    add(PatternRegex(regex.string(), regex.path()));
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

/** The types that are splits at characters of some class. */
bool PreTokenizer::add_simple(const std::string& type) {
  struct Row {
    std::string_view type;
    std::uint16_t bits;
    Behavior behavior;
  };
  constexpr Row kRows[] = {
      {"BertPreTokenizer", kIsSpace, Behavior::Removed},
      {"BertPreTokenizer", kIsPunctuation, Behavior::Isolated},
      {"Whitespace", kIsSpace, Behavior::Removed},
      {"Whitespace", kIsWord, Behavior::Contiguous},
      {"WhitespaceSplit", kIsSpace, Behavior::Removed},
  };
  bool found = false;
  for (const Row& row : kRows) {
    if (row.type == type) {
      steps_.emplace_back(Split{CharacterClass{row.bits}, row.behavior, false});
      found = true;
    }
  }
  return found;
}

void PreTokenizer::add(const JsonField& field, ChainLimits& limits) {
  constexpr std::uint32_t kLongestPiece = 1u << 30;
  limits.add_step(field);
  const std::string type = field["type"].string();
  if (type == "Sequence") {
    const JsonField parts = field["pretokenizers"];
    for (std::size_t i = 0; i < parts.array_size(); ++i) {
      add(parts[i], limits);
    }
  } else if (type == "Split") {
    add_split(field);
  } else if (type == "ByteLevel") {
    add_byte_level(field);
  } else if (type == "Metaspace") {
    add_metaspace(field);
  } else if (type == "Digits") {
    const bool single = field["individual_digits"].boolean_or(false);
    steps_.emplace_back(Split{
        CharacterClass{kIsNumeric},
        single ? Behavior::Isolated : Behavior::Contiguous,
        false});
  } else if (type == "Punctuation") {
    const JsonField behavior = field["behavior"];
    steps_.emplace_back(Split{
        CharacterClass{kIsPunctuation},
        behavior.is_null() ? Behavior::Isolated : parse_behavior(behavior),
        false});
  } else if (type == "CharDelimiterSplit") {
    steps_.emplace_back(
        Split{field["delimiter"].character(), Behavior::Removed, false});
  } else if (type == "FixedLength") {
    const JsonField length = field["length"];
    const std::size_t n = length.is_null() ? 5 : length.index(kLongestPiece);
    if (n == 0) {
      length.reject("a length of at least 1");
    }
    steps_.emplace_back(FixedLength{n});
  } else if (type == "UnicodeScripts") {
    steps_.emplace_back(Scripts{});
  } else if (!add_simple(type)) {
    field["type"].refuse("the pre-tokenizer " + type);
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

Pieces PreTokenizer::apply(std::string text, bool at_start, PatternRun& run)
    const {
  Pieces pieces{
      .text = std::move(text), .ranges = {}, .starts_input = at_start};
  if (!pieces.text.empty()) {
    pieces.ranges.push_back({0, pieces.text.size()});
  }
  Scratch scratch{run, {}, {}};
  for (const Step& step : steps_) {
    std::visit(
        [&](const auto& one) { apply_step(one, pieces, scratch); }, step);
  }
  return pieces;
}

} // namespace optiq::text
