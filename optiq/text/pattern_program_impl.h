#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "optiq/text/pattern_syntax_impl.h"

namespace optiq::text {

/** A set of code points for tests in constant time: a table for ASCII, blocks
 * of 256 for the rest. */
class CharacterTable {
 public:
  explicit CharacterTable(const CodePointSet& set);

  bool has_ascii(unsigned char c) const {
    return ascii_[c];
  }
  bool has(std::uint32_t code_point) const {
    const std::size_t bit =
        std::size_t{block_of_[code_point >> 8]} << 8 | (code_point & 0xFF);
    return (bits_[bit >> 6] >> (bit & 63) & 1) != 0;
  }

 private:
  std::array<bool, 128> ascii_{};
  std::array<std::uint16_t, 0x1100> block_of_{};
  std::vector<std::uint64_t> bits_;
};

/** An instruction; what does not lead to a match goes back to the last choice.
 * a, b, c are what the comment of its kind says. */
struct PatternInstruction {
  enum class Op : std::uint8_t {
    Set, // one character of set a
    RunGreedy, // b to c characters of set a, as many as there are
    RunLazy,
    RunPossessive,
    Split, // on at a, or else at b; c: what the next character must be
    Jump, // on at a
    Save, // the place into slot a
    Atomic, // on at a behind the first match of what follows this
    Look, // on at a if what follows this matches; b: index of its PatternLook
    Assertion, // a: a PatternNode::Place
    BackReference, // a: index of the groups
    LoopStart, // the place into slot a
    LoopEnd, // on at b if nothing was matched since LoopStart of slot a
    Keep,
    Accept,
  };
  Op op;
  std::uint32_t a = 0;
  std::uint32_t b = 0;
  std::uint32_t c = 0;
};

struct PatternLook {
  bool behind;
  bool negated;
  std::uint32_t min; // characters, of what is behind
  std::uint32_t max;
};

constexpr std::uint32_t kAnySet = ~0u; // no condition

/** Sets that the next character must be of, for either way of a Split. */
struct PatternFilter {
  std::uint32_t first = kAnySet;
  std::uint32_t second = kAnySet;
};

struct PatternProgram {
  std::vector<PatternInstruction> code; // begins at 0
  std::vector<CharacterTable> sets;
  std::vector<PatternFilter> filters;
  std::vector<PatternLook> looks;
  std::vector<std::vector<std::uint32_t>> references; // numbers of groups
  std::uint32_t slots = 0; // group n has 2n - 2 and 2n - 1
  std::uint32_t first = kAnySet; // what a match must begin with
  std::uint32_t words = kAnySet; // \w, where there is a \b
};

/** Throws Unsupported for a program without measure. */
PatternProgram compile_pattern(
    const PatternSyntax& syntax,
    std::string_view pattern,
    const std::string& where);

} // namespace optiq::text
