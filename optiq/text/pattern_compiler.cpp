#include <algorithm>
#include <map>
#include <unordered_map>

#include "optiq/base/error.h"
#include "optiq/text/pattern_program_impl.h"

namespace optiq::text {
namespace {

using Kind = PatternNode::Kind;
using Mode = PatternNode::Mode;
using Op = PatternInstruction::Op;

// The largest published patterns have some hundred instructions, 30 sets.
constexpr std::size_t kMaxInstructions = 20'000;
constexpr std::size_t kMaxSets = 1000;
// How far to look for what must follow a repetition.
constexpr std::size_t kFollowing = 4;

/** What a part can begin with. */
struct Beginning {
  CodePointSet set;
  bool may_be_empty = false; // then `set` is of no use alone
};

struct Length { // in characters
  std::uint32_t min = 0;
  std::uint32_t max = 0; // kNoLimit
};

std::uint32_t add(std::uint32_t a, std::uint32_t b) {
  return a > kNoLimit - b ? kNoLimit : a + b;
}

std::uint32_t multiply(std::uint32_t a, std::uint32_t b) {
  const std::uint64_t product = std::uint64_t{a} * b;
  return a == 0 || b == 0
      ? 0
      : static_cast<std::uint32_t>(std::min<std::uint64_t>(product, kNoLimit));
}

Length length_of(const PatternNode& node) {
  switch (node.kind) {
    case Kind::Set:
      return {1, 1};
    case Kind::Look:
    case Kind::Assertion:
    case Kind::Keep:
      return {0, 0};
    case Kind::BackReference:
      return {0, kNoLimit};
    case Kind::Repeat: {
      const Length child = length_of(node.children[0]);
      return {
          multiply(child.min, node.min),
          node.max == kNoLimit && child.max > 0
              ? kNoLimit
              : multiply(child.max, node.max)};
    }
    case Kind::Alternatives: {
      Length either{kNoLimit, 0};
      for (const PatternNode& child : node.children) {
        const Length one = length_of(child);
        either = {std::min(either.min, one.min), std::max(either.max, one.max)};
      }
      return either;
    }
    default: {
      Length sum;
      for (const PatternNode& child : node.children) {
        const Length one = length_of(child);
        sum = {add(sum.min, one.min), add(sum.max, one.max)};
      }
      return sum;
    }
  }
}

class PatternCompiler {
 public:
  PatternCompiler(
      const PatternSyntax& syntax,
      std::string_view pattern,
      const std::string& where)
      : syntax_(syntax), pattern_(pattern), where_(where) {}

  PatternProgram compile() {
    if (syntax_.has_back_references) {
      program_.slots = 2 * count_groups(syntax_.root);
    }
    const Beginning& beginning = beginning_of(syntax_.root);
    if (!beginning.may_be_empty) {
      program_.first = intern(beginning.set);
    }
    emit(syntax_.root);
    add_instruction({Op::Accept});
    return std::move(program_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    fail(
        ErrorKind::Unsupported,
        "[Tokenizer::parse] {}: found a pattern of {} bytes that {}, which "
        "this version does not implement. Use a model with another tokenizer",
        where_,
        pattern_.size(),
        what);
  }

  std::uint32_t count_groups(const PatternNode& node) const {
    std::uint32_t highest = node.kind == Kind::Capture ? node.number : 0;
    for (const PatternNode& child : node.children) {
      highest = std::max(highest, count_groups(child));
    }
    return highest;
  }

  std::uint32_t here() const {
    return static_cast<std::uint32_t>(program_.code.size());
  }

  std::uint32_t add_instruction(const PatternInstruction& instruction) {
    if (program_.code.size() == kMaxInstructions) {
      refuse("repeats its parts too often");
    }
    program_.code.push_back(instruction);
    return here() - 1;
  }

  std::uint32_t intern(const CodePointSet& set) {
    const auto [found, added] = set_numbers_.try_emplace(
        set, static_cast<std::uint32_t>(program_.sets.size()));
    if (added) {
      if (program_.sets.size() == kMaxSets) {
        refuse("has too many different sets of characters");
      }
      program_.sets.emplace_back(set);
    }
    return found->second;
  }

  /** Remembered, since repetitions emit their child again and again. */
  const Beginning& beginning_of(const PatternNode& node) {
    if (const auto known = beginnings_.find(&node);
        known != beginnings_.end()) {
      return known->second;
    }
    return beginnings_[&node] = find_beginning(node);
  }

  Beginning find_beginning(const PatternNode& node) {
    switch (node.kind) {
      case Kind::Set:
        return {node.set, false};
      case Kind::Look:
      case Kind::Assertion:
      case Kind::Keep:
        return {{}, true};
      case Kind::BackReference:
        return {CodePointSet::all(), true};
      case Kind::Repeat: {
        Beginning child = beginning_of(node.children[0]);
        child.may_be_empty |= node.min == 0;
        return child;
      }
      case Kind::Alternatives: {
        Beginning either;
        for (const PatternNode& child : node.children) {
          const Beginning& one = beginning_of(child);
          either.set = either.set.united(one.set);
          either.may_be_empty |= one.may_be_empty;
        }
        return either;
      }
      default:
        return beginning_of_rest(node.children, 0, node.children.size());
    }
  }

  Beginning beginning_of_rest(
      const std::vector<PatternNode>& nodes,
      std::size_t at,
      std::size_t end) {
    Beginning sum{{}, true};
    for (; sum.may_be_empty && at < end; ++at) {
      const Beginning& one = beginning_of(nodes[at]);
      sum.set = sum.set.united(one.set);
      sum.may_be_empty = one.may_be_empty;
    }
    return sum;
  }

  void emit(const PatternNode& node) {
    if (++emitted_ > kMaxInstructions) {
      refuse("repeats its parts too often");
    }
    switch (node.kind) {
      case Kind::Set:
        add_instruction({Op::Set, intern(node.set)});
        break;
      case Kind::Sequence:
        emit_sequence(node);
        break;
      case Kind::Alternatives:
        emit_alternatives(node);
        break;
      case Kind::Repeat:
        emit_repeat(node, node.mode);
        break;
      case Kind::Capture:
        emit_capture(node);
        break;
      case Kind::Atomic:
        emit_enclosed({Op::Atomic}, node.children[0]);
        break;
      case Kind::Look:
        emit_look(node);
        break;
      case Kind::Assertion:
        if (node.place == PatternNode::Place::WordBoundary ||
            node.place == PatternNode::Place::NotWordBoundary) {
          program_.words = intern(word_characters());
        }
        add_instruction(
            {Op::Assertion, static_cast<std::uint32_t>(node.place)});
        break;
      case Kind::BackReference:
        add_instruction(
            {Op::BackReference,
             static_cast<std::uint32_t>(program_.references.size())});
        program_.references.push_back(node.numbers);
        break;
      case Kind::Keep:
        add_instruction({Op::Keep});
        break;
    }
  }

  void emit_sequence(const PatternNode& node) {
    const auto& children = node.children;
    for (std::size_t i = 0; i < children.size(); ++i) {
      const PatternNode& child = children[i];
      if (child.kind == Kind::Repeat && child.mode == Mode::Greedy &&
          child.children[0].kind == Kind::Set) {
        // What must follow cannot be of the set: nothing to give back.
        const Beginning rest = beginning_of_rest(
            children, i + 1, std::min(children.size(), i + 1 + kFollowing));
        const bool apart = child.children[0].set.intersected(rest.set).empty();
        emit_repeat(
            child, apart && !rest.may_be_empty ? Mode::Possessive : child.mode);
      } else {
        emit(child);
      }
    }
  }

  void emit_alternatives(const PatternNode& node) {
    std::vector<std::uint32_t> jumps;
    const std::size_t n = node.children.size();
    // What the alternatives from the i-th on can begin with.
    std::vector<Beginning> rest(n);
    rest[n - 1] = beginning_of(node.children[n - 1]);
    for (std::size_t i = n - 1; i-- > 0;) {
      const Beginning& one = beginning_of(node.children[i]);
      rest[i] = {
          one.set.united(rest[i + 1].set),
          one.may_be_empty || rest[i + 1].may_be_empty};
    }
    for (std::size_t i = 0; i + 1 < n; ++i) {
      const std::uint32_t split =
          add_split(beginning_of(node.children[i]), rest[i + 1]);
      program_.code[split].a = here();
      emit(node.children[i]);
      jumps.push_back(add_instruction({Op::Jump}));
      program_.code[split].b = here();
    }
    emit(node.children[n - 1]);
    for (const std::uint32_t jump : jumps) {
      program_.code[jump].a = here();
    }
  }

  std::uint32_t add_split(const Beginning& first, const Beginning& second) {
    const auto filter = [&](const Beginning& beginning) {
      return beginning.may_be_empty ? kAnySet : intern(beginning.set);
    };
    program_.filters.push_back({filter(first), filter(second)});
    return add_instruction(
        {Op::Split,
         0,
         0,
         static_cast<std::uint32_t>(program_.filters.size() - 1)});
  }

  void emit_repeat(const PatternNode& node, Mode mode) {
    const PatternNode& child = node.children[0];
    if (child.kind == Kind::Set) {
      const Op op = mode == Mode::Greedy ? Op::RunGreedy
          : mode == Mode::Lazy           ? Op::RunLazy
                                         : Op::RunPossessive;
      add_instruction({op, intern(child.set), node.min, node.max});
      return;
    }
    if (mode == Mode::Possessive) {
      const std::uint32_t atomic = add_instruction({Op::Atomic});
      emit_copies(node, false);
      add_instruction({Op::Accept});
      program_.code[atomic].a = here();
      return;
    }
    emit_copies(node, mode == Mode::Lazy);
  }

  void emit_copies(const PatternNode& node, bool lazy) {
    const PatternNode& child = node.children[0];
    for (std::uint32_t i = 0; i < node.min; ++i) {
      emit(child);
    }
    if (node.max == kNoLimit) {
      emit_loop(child, lazy);
      return;
    }
    std::vector<std::uint32_t> splits;
    for (std::uint32_t i = node.min; i < node.max; ++i) {
      splits.push_back(emit_choice(child, lazy));
      emit(child);
    }
    for (const std::uint32_t split : splits) {
      (lazy ? program_.code[split].a : program_.code[split].b) = here();
    }
  }

  /** A Split whose one way is the next instruction; the other is open. */
  std::uint32_t emit_choice(const PatternNode& child, bool lazy) {
    const Beginning anything{{}, true};
    const Beginning& body = beginning_of(child);
    const std::uint32_t split =
        lazy ? add_split(anything, body) : add_split(body, anything);
    (lazy ? program_.code[split].b : program_.code[split].a) = here();
    return split;
  }

  void emit_loop(const PatternNode& child, bool lazy) {
    const std::uint32_t split = emit_choice(child, lazy);
    const bool may_be_empty = length_of(child).min == 0;
    const std::uint32_t slot = program_.slots;
    if (may_be_empty) {
      ++program_.slots;
      add_instruction({Op::LoopStart, slot});
    }
    emit(child);
    const std::uint32_t end = may_be_empty ? here() : 0;
    if (may_be_empty) {
      add_instruction({Op::LoopEnd, slot});
    }
    add_instruction({Op::Jump, split});
    if (may_be_empty) {
      program_.code[end].b = here();
    }
    (lazy ? program_.code[split].a : program_.code[split].b) = here();
  }

  void emit_capture(const PatternNode& node) {
    const bool saved = syntax_.has_back_references;
    if (saved) {
      add_instruction({Op::Save, 2 * node.number - 2});
    }
    emit(node.children[0]);
    if (saved) {
      add_instruction({Op::Save, 2 * node.number - 1});
    }
  }

  /** The instruction, the child, Accept; `a` of it is what comes behind. */
  void emit_enclosed(PatternInstruction instruction, const PatternNode& child) {
    const std::uint32_t at = add_instruction(instruction);
    emit(child);
    add_instruction({Op::Accept});
    program_.code[at].a = here();
  }

  void emit_look(const PatternNode& node) {
    const Length length = length_of(node.children[0]);
    program_.looks.push_back(
        {node.behind, node.negated, length.min, length.max});
    emit_enclosed(
        {Op::Look, 0, static_cast<std::uint32_t>(program_.looks.size() - 1)},
        node.children[0]);
  }

  const PatternSyntax& syntax_;
  std::string_view pattern_;
  const std::string& where_;
  PatternProgram program_;
  std::size_t emitted_ = 0;
  std::map<CodePointSet, std::uint32_t> set_numbers_;
  std::unordered_map<const PatternNode*, Beginning> beginnings_;
};

} // namespace

CharacterTable::CharacterTable(const CodePointSet& set) {
  using Block = std::array<std::uint64_t, 4>;
  std::map<Block, std::uint16_t> known;
  const auto ranges = set.ranges();
  auto range = ranges.begin();
  for (std::uint32_t i = 0; i < block_of_.size(); ++i) {
    const std::uint32_t begin = i << 8;
    const std::uint32_t end = begin + 0xFF;
    Block block{};
    while (range != ranges.end() && range->first <= end) {
      const std::uint32_t last = std::min(range->last, end);
      for (std::uint32_t c = std::max(range->first, begin); c <= last; ++c) {
        block[(c & 0xFF) >> 6] |= std::uint64_t{1} << (c & 63);
      }
      if (range->last > end) {
        break;
      }
      ++range;
    }
    const auto [found, added] = known.try_emplace(
        block, static_cast<std::uint16_t>(bits_.size() / block.size()));
    if (added) {
      bits_.insert(bits_.end(), block.begin(), block.end());
    }
    block_of_[i] = found->second;
  }
  for (std::uint32_t c = 0; c < ascii_.size(); ++c) {
    ascii_[c] = has(c);
  }
}

PatternProgram compile_pattern(
    const PatternSyntax& syntax,
    std::string_view pattern,
    const std::string& where) {
  return PatternCompiler(syntax, pattern, where).compile();
}

} // namespace optiq::text
