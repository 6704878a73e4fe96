// Classes in brackets, and what characters are equal to in any case.
#include <algorithm>
#include <optional>

#include "optiq/text/pattern_syntax_impl.h"
#include "optiq/text/unicode_properties_impl.h"

namespace optiq::text {
namespace {

constexpr std::size_t kDeepestClass = 100;

CodePointSet one(char32_t c) {
  return CodePointSet(std::vector<CodePointRange>{{c, c}});
}

/** [...]: members, ranges, classes, and intersections of them. */
class ClassParser {
 public:
  explicit ClassParser(PatternReader& reader) : reader_(reader) {}

  /** From behind the '['. `negated` tells of the outermost '^'. */
  CodePointSet parse(bool& negated, std::size_t depth) {
    if (depth > kDeepestClass) {
      reader_.refuse("classes nested too deep");
    }
    negated = reader_.skip(U"^");
    Ranges members; // since the last &&
    std::optional<CodePointSet> before; // the intersection of what was
    bool empty = true;
    if (reader_.peek() == U']' && has_another_end()) {
      reader_.next();
      member(U']', members);
      empty = false;
    }
    while (!reader_.skip(U"]")) {
      if (reader_.at_end()) {
        reader_.reject("a class that is not closed");
      }
      if (reader_.skip(U"&&")) {
        before = intersected(before, members);
        members.clear();
      } else {
        item(members, depth);
      }
      empty = false;
    }
    if (empty) {
      reader_.reject("an empty class");
    }
    const CodePointSet set = intersected(before, members);
    return negated ? set.complement() : set;
  }

 private:
  using Ranges = std::vector<CodePointRange>;

  static CodePointSet intersected(
      const std::optional<CodePointSet>& before,
      const Ranges& members) {
    const CodePointSet set{members};
    return before ? before->intersected(set) : set;
  }

  static void add(const CodePointSet& set, Ranges& members) {
    members.insert(members.end(), set.ranges().begin(), set.ranges().end());
  }

  /** Whether a ']' right at the beginning is a member: another one closes. */
  bool has_another_end() const {
    for (std::size_t ahead = 1; reader_.peek(ahead) != U'\0'; ++ahead) {
      if (reader_.peek(ahead) == U']') {
        return true;
      }
    }
    return false;
  }

  void item(Ranges& members, std::size_t depth) {
    CodePointSet set;
    if (reader_.looking_at(U"[:") && posix(set)) {
      add(set, members);
    } else if (reader_.skip(U"[")) {
      bool negated = false;
      add(parse(negated, depth + 1), members);
    } else if (reader_.peek() == U'\\') {
      reader_.next();
      if (reader_.read_escaped_set(set, true)) {
        add(set, members);
      } else {
        member(escaped(), members);
      }
    } else {
      member(reader_.next(), members);
    }
  }

  char32_t escaped() {
    char32_t c = 0;
    if (reader_.read_escaped_character(c, true)) {
      return c;
    }
    if (reader_.at_end()) {
      reader_.reject("a '\\' at the end");
    }
    if (reader_.peek() >= U'1' && reader_.peek() <= U'9') {
      reader_.refuse("an octal number");
    }
    return reader_.next(); // a letter without a meaning stands for itself
  }

  /** A character, or a range that it begins. */
  void member(char32_t first, Ranges& members) {
    const bool range = reader_.peek() == U'-' && reader_.peek(1) != U']' &&
        reader_.peek(1) != U'\0' &&
        !(reader_.peek(1) == U'&' && reader_.peek(2) == U'&');
    if (!range) {
      members.push_back({first, first});
      return;
    }
    reader_.next();
    char32_t last = 0;
    if (reader_.peek() == U'[') {
      members.push_back({first, first});
      members.push_back({U'-', U'-'});
      return;
    }
    if (reader_.skip(U"\\")) {
      CodePointSet set;
      if (reader_.read_escaped_set(set, true)) {
        reader_.reject("a class at the end of a range");
      }
      last = escaped();
    } else {
      last = reader_.next();
    }
    if (last < first) {
      reader_.reject("a range that ends before it begins");
    }
    members.push_back({first, last});
  }

  /** [:name:] or [:^name:]; false, without moving, for another '['. */
  bool posix(CodePointSet& set) {
    const std::size_t begin = reader_.position();
    reader_.skip(U"[:");
    const bool negated = reader_.skip(U"^");
    std::string name;
    while (reader_.peek() >= U'a' && reader_.peek() <= U'z') {
      name += static_cast<char>(reader_.next());
    }
    const auto found = find_posix_class(name);
    if (!found || !reader_.skip(U":]")) {
      reader_.go_to(begin);
      return false;
    }
    set = negated ? found->complement() : *found;
    return true;
  }

  PatternReader& reader_;
};

PatternNode sequence_of(std::u32string_view text) {
  std::vector<PatternNode> nodes;
  for (const char32_t c : text) {
    nodes.push_back(set_node(one(c).in_any_case()));
  }
  return group_node(PatternNode::Kind::Sequence, std::move(nodes));
}

/** A character of a literal: itself in any case, or the text of several
 * characters that it is equal to. */
PatternNode single(char32_t c) {
  PatternNode node = set_node(one(c).in_any_case());
  for (const LongFold& fold : unicode_long_folds()) {
    if (fold.code_point == c) {
      std::vector<PatternNode> either;
      either.push_back(std::move(node));
      either.push_back(sequence_of(fold.text));
      return group_node(PatternNode::Kind::Alternatives, std::move(either));
    }
  }
  return node;
}

/** The characters that are equal to literals[at, at + size). */
CodePointSet
folded_from(std::u32string_view literals, std::size_t at, std::size_t size) {
  std::vector<CodePointSet> cases;
  for (std::size_t i = 0; i < size; ++i) {
    cases.push_back(one(literals[at + i]).in_any_case());
  }
  std::vector<CodePointRange> found;
  for (const LongFold& fold : unicode_long_folds()) {
    bool equal = fold.text.size() == size;
    for (std::size_t i = 0; equal && i < size; ++i) {
      equal = cases[i].contains(fold.text[i]);
    }
    if (equal) {
      found.push_back({fold.code_point, fold.code_point});
    }
  }
  return CodePointSet(std::move(found));
}

} // namespace

PatternNode parse_pattern_class(PatternReader& reader, bool any_case) {
  bool negated = false;
  const CodePointSet set = ClassParser(reader).parse(negated, 0);
  if (!any_case) {
    return set_node(set);
  }
  if (negated) {
    return set_node(set.complement().in_any_case().complement());
  }
  std::vector<PatternNode> either;
  either.push_back(set_node(set.in_any_case()));
  for (const LongFold& fold : unicode_long_folds()) {
    if (set.contains(fold.code_point)) {
      either.push_back(sequence_of(fold.text));
    }
  }
  return either.size() == 1
      ? std::move(either[0])
      : group_node(PatternNode::Kind::Alternatives, std::move(either));
}

PatternNode any_case_node(std::u32string_view literals) {
  std::vector<PatternNode> nodes;
  for (std::size_t at = 0; at < literals.size();) {
    // As Oniguruma has it: the longest text that a character is equal to, and
    // on behind it.
    std::size_t size = std::min<std::size_t>(3, literals.size() - at);
    CodePointSet equal;
    for (; size > 1; --size) {
      equal = folded_from(literals, at, size);
      if (!equal.empty()) {
        break;
      }
    }
    if (size == 1) {
      nodes.push_back(single(literals[at]));
    } else {
      std::vector<PatternNode> either;
      either.push_back(sequence_of(literals.substr(at, size)));
      either.push_back(set_node(equal));
      nodes.push_back(
          group_node(PatternNode::Kind::Alternatives, std::move(either)));
    }
    at += size;
  }
  return group_node(PatternNode::Kind::Sequence, std::move(nodes));
}

} // namespace optiq::text
