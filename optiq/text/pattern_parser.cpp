#include <algorithm>
#include <map>

#include "optiq/text/pattern_syntax_impl.h"
#include "optiq/text/unicode_properties_impl.h"

namespace optiq::text {
namespace {

using Kind = PatternNode::Kind;
using Place = PatternNode::Place;

constexpr std::size_t kDeepest = 100;
constexpr std::uint32_t kMostRepeats = 100'000; // Oniguruma's

struct Options {
  bool any_case = false;
  bool extended = false; // blanks and comments do not count
  bool dot_all = false;
};

/** An element of a sequence that quantifiers may follow. */
struct Atom {
  PatternNode node;
  char32_t literal = 0; // with is_literal: one in any case, not yet a node
  bool is_literal = false;
  bool may_repeat = true;
};

CodePointSet one(char32_t c) {
  return CodePointSet(std::vector<CodePointRange>{{c, c}});
}

PatternNode assertion(Place place) {
  PatternNode node;
  node.kind = Kind::Assertion;
  node.place = place;
  return node;
}

PatternNode repeat(
    PatternNode child,
    std::uint32_t min,
    std::uint32_t max,
    PatternNode::Mode mode) {
  PatternNode node;
  node.kind = Kind::Repeat;
  node.children.push_back(std::move(child));
  node.min = min;
  node.max = max;
  node.mode = mode;
  return node;
}

class PatternParser {
 public:
  PatternParser(std::string_view pattern, const std::string& where)
      : reader_(pattern, where) {}

  PatternSyntax parse() {
    has_names_ = reader_has_names();
    PatternSyntax syntax;
    syntax.root = alternatives({}, 0);
    if (!reader_.at_end()) {
      reader_.reject("a ')' without '('");
    }
    if (highest_reference_ > groups_) {
      reader_.reject("a back reference to a group that is not there");
    }
    syntax.has_back_references = has_references_;
    return syntax;
  }

 private:
  /** Where a name is given, (...) does not count as a group. */
  bool reader_has_names() {
    while (!reader_.at_end()) {
      const bool named = reader_.looking_at(U"(?<") &&
          reader_.peek(3) != U'=' && reader_.peek(3) != U'!';
      if (named || reader_.looking_at(U"(?'")) {
        break;
      }
      if (reader_.next() == U'\\' && !reader_.at_end()) {
        reader_.next();
      }
    }
    const bool found = !reader_.at_end();
    reader_.go_to(0);
    return found;
  }

  /** Up to a ')' or the end. */
  PatternNode alternatives(const Options& options, std::size_t depth) {
    if (depth > kDeepest) {
      reader_.refuse("groups nested too deep");
    }
    std::vector<PatternNode> either;
    do {
      either.push_back(sequence(options, depth));
    } while (reader_.skip(U"|"));
    return either.size() == 1
        ? std::move(either[0])
        : group_node(Kind::Alternatives, std::move(either));
  }

  PatternNode sequence(const Options& options, std::size_t depth) {
    std::vector<PatternNode> nodes;
    std::u32string literals; // in any case, not yet among the nodes
    const auto flush = [&] {
      if (!literals.empty()) {
        nodes.push_back(any_case_node(literals));
        literals.clear();
      }
    };
    while (!reader_.at_end() && reader_.peek() != U'|' &&
           reader_.peek() != U')') {
      if (options.extended && skip_blank()) {
        continue;
      }
      Options changed = options;
      if (read_isolated_options(changed)) {
        // It holds up to the ')', alternatives included.
        flush();
        nodes.push_back(alternatives(changed, depth + 1));
        break;
      }
      Atom parsed = atom(options, depth);
      const bool repeated = at_quantifier(options);
      if (parsed.is_literal && !repeated) {
        literals += parsed.literal;
        continue;
      }
      flush();
      if (parsed.is_literal) {
        parsed.node = any_case_node({&parsed.literal, 1});
      }
      nodes.push_back(
          repeated ? quantified(std::move(parsed), options)
                   : std::move(parsed.node));
    }
    flush();
    return nodes.size() == 1 ? std::move(nodes[0])
                             : group_node(Kind::Sequence, std::move(nodes));
  }

  bool skip_blank() {
    if (reader_.skip(U"#")) {
      while (!reader_.at_end() && reader_.next() != U'\n') {
      }
      return true;
    }
    const char32_t c = reader_.peek();
    if (c == U' ' || (c >= U'\t' && c <= U'\r')) {
      reader_.next();
      return true;
    }
    return false;
  }

  Atom atom(const Options& options, std::size_t depth) {
    const std::size_t begin = reader_.position();
    const char32_t c = reader_.next();
    switch (c) {
      case U'[':
        return {.node = parse_pattern_class(reader_, options.any_case)};
      case U'(':
        return group(options, depth);
      case U'.':
        return {.node = dot(options.dot_all)};
      case U'^':
        return {.node = assertion(Place::LineStart), .may_repeat = false};
      case U'$':
        return {.node = assertion(Place::LineEnd), .may_repeat = false};
      case U'\\':
        return escape(options);
      case U'{':
        reader_.go_to(begin);
        if (at_interval()) {
          reader_.reject("a repetition of nothing");
        }
        reader_.next();
        return literal(c, options);
      case U'*':
      case U'+':
      case U'?':
        reader_.reject("a repetition of nothing");
      default:
        return literal(c, options);
    }
  }

  static Atom literal(char32_t c, const Options& options) {
    if (options.any_case) {
      return {.node = {}, .literal = c, .is_literal = true};
    }
    return {.node = set_node(one(c))};
  }

  static PatternNode dot(bool newline_too) {
    return set_node(
        newline_too ? CodePointSet::all() : one(U'\n').complement());
  }

  /** "\r\n", or any one newline; the pair is not taken apart. */
  static PatternNode newline() {
    std::vector<PatternNode> pair;
    pair.push_back(set_node(one(U'\r')));
    pair.push_back(set_node(one(U'\n')));
    std::vector<PatternNode> either;
    either.push_back(group_node(Kind::Sequence, std::move(pair)));
    either.push_back(set_node(CodePointSet(std::vector<CodePointRange>{
        {0x0A, 0x0D}, {0x85, 0x85}, {0x2028, 0x2029}})));
    std::vector<PatternNode> child;
    child.push_back(group_node(Kind::Alternatives, std::move(either)));
    return group_node(Kind::Atomic, std::move(child));
  }

  Atom escape(const Options& options) {
    constexpr std::pair<char32_t, Place> kPlaces[] = {
        {U'A', Place::TextStart},
        {U'z', Place::TextEnd},
        {U'Z', Place::TextEndOrNewline},
        {U'G', Place::SearchStart},
        {U'b', Place::WordBoundary},
        {U'B', Place::NotWordBoundary}};
    if (reader_.at_end()) {
      reader_.reject("a '\\' at the end");
    }
    const char32_t c = reader_.peek();
    for (const auto& [letter, place] : kPlaces) {
      if (c == letter) {
        reader_.next();
        return {.node = assertion(place), .may_repeat = false};
      }
    }
    if (c >= U'1' && c <= U'9') {
      return {.node = numbered_reference(options)};
    }
    if (reader_.skip(U"k")) {
      return {.node = named_reference(options)};
    }
    if (c == U'X' || c == U'y' || c == U'Y' || c == U'g') {
      reader_.refuse("grapheme clusters or a call of a group");
    }
    if (reader_.skip(U"R")) {
      return {.node = newline()};
    }
    if (reader_.skip(U"N") || reader_.skip(U"O")) {
      return {.node = dot(c == U'O')};
    }
    if (reader_.skip(U"K")) {
      return {.node = group_node(Kind::Keep, {}), .may_repeat = false};
    }
    CodePointSet set;
    if (reader_.read_escaped_set(set, false)) {
      return {.node = set_node(std::move(set))};
    }
    char32_t meant = 0;
    if (!reader_.read_escaped_character(meant, false)) {
      meant = reader_.next(); // a letter without a meaning
    }
    return literal(meant, options);
  }

  PatternNode reference(
      std::vector<std::uint32_t> numbers,
      const Options& options) {
    if (options.any_case) {
      reader_.refuse("a back reference in (?i)");
    }
    has_references_ = true;
    PatternNode node;
    node.kind = Kind::BackReference;
    node.numbers = std::move(numbers);
    return node;
  }

  PatternNode numbered_reference(const Options& options) {
    std::uint32_t number = 0;
    reader_.read_number(number);
    if (has_names_) {
      reader_.reject("a number of a group beside named groups");
    }
    if (number > 9 && number > groups_) {
      reader_.refuse("an octal number");
    }
    highest_reference_ = std::max(highest_reference_, number);
    return reference({number}, options);
  }

  PatternNode named_reference(const Options& options) {
    const bool quoted = reader_.skip(U"'");
    if (!quoted && !reader_.skip(U"<")) {
      reader_.refuse("a \\k without a name");
    }
    const std::string name = reader_.until(quoted ? U'\'' : U'>');
    const auto found = names_.find(name);
    if (found == names_.end()) {
      reader_.refuse("a back reference to '" + name + "'");
    }
    return reference(found->second, options);
  }

  /** i, m, x, and after a '-' what is switched off; false, without moving,
   * where no options stand. */
  bool read_options(Options& options) {
    const std::size_t begin = reader_.position();
    bool on = true;
    for (;; reader_.next()) {
      switch (reader_.peek()) {
        case U'-':
          on = false;
          break;
        case U'i':
          options.any_case = on;
          break;
        case U'm':
          options.dot_all = on;
          break;
        case U'x':
          options.extended = on;
          break;
        default:
          if (reader_.peek() == U':' || reader_.peek() == U')') {
            return true;
          }
          reader_.go_to(begin);
          return false;
      }
    }
  }

  /** (?i) and the like, which holds to the end of the group around it. */
  bool read_isolated_options(Options& options) {
    const std::size_t begin = reader_.position();
    if (reader_.skip(U"(?") && read_options(options) && reader_.skip(U")")) {
      return true;
    }
    reader_.go_to(begin);
    return false;
  }

  Atom group(const Options& options, std::size_t depth) {
    struct Row {
      std::u32string_view opening;
      Kind kind;
      bool behind;
      bool negated;
    };
    constexpr Row kRows[] = {
        {U"?:", Kind::Sequence, false, false},
        {U"?>", Kind::Atomic, false, false},
        {U"?=", Kind::Look, false, false},
        {U"?!", Kind::Look, false, true},
        {U"?<=", Kind::Look, true, false},
        {U"?<!", Kind::Look, true, true}};
    if (reader_.skip(U"?#")) {
      reader_.until(U')');
      return {.node = group_node(Kind::Sequence, {}), .may_repeat = false};
    }
    if (reader_.looking_at(U"*")) {
      reader_.refuse("a callout");
    }
    PatternNode node;
    Options inner = options;
    for (const Row& row : kRows) {
      if (reader_.skip(row.opening)) {
        node.kind = row.kind;
        node.behind = row.behind;
        node.negated = row.negated;
        return closed(std::move(node), inner, depth);
      }
    }
    const bool quoted = reader_.skip(U"?'");
    if (quoted || reader_.skip(U"?<")) {
      node.kind = Kind::Capture;
      node.number = ++groups_;
      names_[reader_.until(quoted ? U'\'' : U'>')].push_back(node.number);
    } else if (reader_.skip(U"?")) {
      if (!read_options(inner) || !reader_.skip(U":")) {
        reader_.refuse("a group of another kind");
      }
    } else if (!has_names_) {
      node.kind = Kind::Capture;
      node.number = ++groups_;
    }
    return closed(std::move(node), inner, depth);
  }

  Atom closed(PatternNode node, const Options& options, std::size_t depth) {
    node.children.push_back(alternatives(options, depth + 1));
    if (!reader_.skip(U")")) {
      reader_.reject("a '(' that is not closed");
    }
    const bool look = node.kind == Kind::Look;
    return {.node = std::move(node), .may_repeat = !look};
  }

  bool at_quantifier(const Options& options) {
    while (options.extended && skip_blank()) {
    }
    const char32_t c = reader_.peek();
    return c == U'*' || c == U'+' || c == U'?' || (c == U'{' && at_interval());
  }

  bool at_interval() {
    const std::size_t begin = reader_.position();
    std::uint32_t min = 0;
    std::uint32_t max = 0;
    const bool found = interval(min, max);
    reader_.go_to(begin);
    return found;
  }

  /** {n}, {n,}, {,m}, {n,m}; another '{' is a character. */
  bool interval(std::uint32_t& min, std::uint32_t& max) {
    reader_.skip(U"{");
    const bool has_min = reader_.read_number(min);
    const bool comma = reader_.skip(U",");
    const bool has_max = comma && reader_.read_number(max);
    if (!reader_.skip(U"}") || (!has_min && !has_max)) {
      return false;
    }
    max = has_max ? max : comma ? kNoLimit : min;
    return true;
  }

  PatternNode quantified(Atom parsed, const Options& options) {
    PatternNode node = std::move(parsed.node);
    if (!parsed.may_repeat) {
      reader_.reject("a repetition of what has no length");
    }
    std::size_t stacked = 0;
    while (at_quantifier(options)) {
      if (++stacked > kDeepest) {
        reader_.refuse("repetitions nested too deep");
      }
      node = quantifier(std::move(node));
    }
    return node;
  }

  PatternNode quantifier(PatternNode node) {
    using Mode = PatternNode::Mode;
    if (reader_.peek() != U'{') {
      const char32_t c = reader_.next();
      const Mode mode = reader_.skip(U"?") ? Mode::Lazy
          : reader_.skip(U"+")             ? Mode::Possessive
                                           : Mode::Greedy;
      return repeat(
          std::move(node), c == U'+' ? 1 : 0, c == U'?' ? 1 : kNoLimit, mode);
    }
    std::uint32_t min = 0;
    std::uint32_t max = 0;
    interval(min, max);
    if (min > kMostRepeats || (max != kNoLimit && max > kMostRepeats)) {
      reader_.refuse("more than 100000 repetitions");
    }
    if (max < min) {
      return repeat(std::move(node), max, min, Mode::Possessive);
    }
    // {n}? makes the n times optional; {n,m}? is lazy.
    const bool lazy = min != max && reader_.skip(U"?");
    return repeat(std::move(node), min, max, lazy ? Mode::Lazy : Mode::Greedy);
  }

  PatternReader reader_;
  bool has_names_ = false;
  bool has_references_ = false;
  std::uint32_t groups_ = 0;
  std::uint32_t highest_reference_ = 0;
  std::map<std::string, std::vector<std::uint32_t>> names_;
};

} // namespace

PatternNode set_node(CodePointSet set) {
  PatternNode node;
  node.kind = Kind::Set;
  node.set = std::move(set);
  return node;
}

PatternNode group_node(Kind kind, std::vector<PatternNode> children) {
  PatternNode node;
  node.kind = kind;
  node.children = std::move(children);
  return node;
}

PatternSyntax parse_pattern(
    std::string_view pattern,
    const std::string& where) {
  return PatternParser(pattern, where).parse();
}

} // namespace optiq::text
