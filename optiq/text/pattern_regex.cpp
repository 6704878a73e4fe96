#include "optiq/text/pattern_regex.h"

#include <algorithm>

#include "optiq/base/error.h"
#include "optiq/text/pattern_program_impl.h"
#include "optiq/text/unicode_impl.h"

namespace optiq::text {
namespace {

using Op = PatternInstruction::Op;
using Place = PatternNode::Place;

constexpr std::size_t kLongestPattern = 10'000;
// Published patterns take up to 10 steps a byte.
constexpr std::int64_t kSteps = 50'000'000; // of any text
constexpr std::int64_t kStepsPerByte = 100;
// NFKD makes 33 bytes of 3.
constexpr std::size_t kMostBytes = 16u << 20; // of any text
constexpr std::size_t kMostBytesPerByte = 16;
constexpr std::size_t kMaxChoices = 2u << 20; // 12 bytes each
constexpr std::size_t kLongestText = 0x7FFFFFFF; // places have 31 bits

constexpr std::uint32_t kNowhere = ~0u;
// Of Choice::more: the place is where `instruction` goes on.
constexpr std::uint32_t kBranch = ~0u;
// Of Choice::instruction: slot `instruction` had the value `place`.
constexpr std::uint32_t kUndo = 1u << 31;

} // namespace

PatternRun::PatternRun(std::size_t text_bytes)
    : most_bytes_(kMostBytes + kMostBytesPerByte * text_bytes),
      steps_(
          kSteps +
          kStepsPerByte *
              static_cast<std::int64_t>(std::min(text_bytes, kLongestText))),
      steps_left_(steps_) {}

void PatternRun::expect_room_for(std::size_t bytes) const {
  if (bytes > most_bytes_) {
    fail(
        ErrorKind::Exhausted,
        "[Tokenizer::encode] found a text that the steps of tokenizer.json make "
        "longer than {} bytes. Use a shorter text, or a model with another "
        "tokenizer",
        most_bytes_);
  }
}

/** Matches of one program in one text. */
class PatternMatcher {
 public:
  PatternMatcher(
      const PatternProgram& program,
      const std::string& pattern,
      std::string_view text,
      PatternRun& run)
      : program_(program),
        pattern_(pattern),
        text_(text),
        size_(static_cast<std::uint32_t>(text.size())),
        run_(run) {
    run_.choices_.clear();
  }

  /** The leftmost match that begins at `from` or later. */
  bool search(std::uint32_t from, TextRange& found) {
    search_start_ = from;
    for (std::uint32_t at = from;; at += character_length(at)) {
      if (program_.first != kAnySet) {
        at = skip_to(program_.sets[program_.first], at);
        if (at == size_) {
          return false;
        }
      }
      spend(1 + program_.slots / 4);
      run_.slots_.assign(program_.slots, kNowhere);
      keep_ = at;
      std::uint32_t end = 0;
      if (match(0, at, kNowhere, end)) {
        run_.choices_.clear();
        found = {keep_, end};
        return true;
      }
      if (at == size_) {
        return false;
      }
    }
  }

  std::uint32_t character_length(std::uint32_t at) const {
    return at == size_ ? 1 : decode_character(text_.data() + at).length;
  }

 private:
  void spend(std::uint32_t steps) {
    run_.steps_left_ -= steps;
    if (run_.steps_left_ < 0) {
      fail(
          ErrorKind::Exhausted,
          "[Tokenizer::encode] pattern '{}': found no end within {} steps for "
          "the text, {} bytes of it at a time. Use a shorter text, or a model "
          "with another tokenizer",
          pattern_.substr(0, 200),
          run_.steps_,
          size_);
    }
  }

  /** Bytes of the character at `at` if it is of the set, else 0. */
  std::uint32_t length_in(const CharacterTable& set, std::uint32_t at) const {
    if (at == size_) {
      return 0;
    }
    const auto byte = static_cast<unsigned char>(text_[at]);
    if (byte < 0x80) {
      return set.has_ascii(byte) ? 1 : 0;
    }
    const DecodedCharacter c = decode_character(text_.data() + at);
    return set.has(c.code_point) ? c.length : 0;
  }

  std::uint32_t skip_to(const CharacterTable& set, std::uint32_t at) {
    const std::uint32_t begin = at;
    while (at < size_ && length_in(set, at) == 0) {
      at += character_length(at);
    }
    spend(at - begin);
    return at;
  }

  void add_choice(
      std::uint32_t instruction,
      std::uint32_t place,
      std::uint32_t more) {
    if (run_.choices_.size() == kMaxChoices) {
      fail(
          ErrorKind::Exhausted,
          "[Tokenizer::encode] pattern '{}': found more than {} choices in one "
          "match, expected fewer. Use a shorter text, or a model with another "
          "tokenizer",
          pattern_.substr(0, 200),
          kMaxChoices);
    }
    run_.choices_.push_back({instruction, place, more});
  }

  void set_slot(std::uint32_t slot, std::uint32_t value) {
    add_choice(slot | kUndo, run_.slots_[slot], kBranch);
    run_.slots_[slot] = value;
  }

  /** Goes back to the last choice above `base`; false if there is none. */
  bool back(std::size_t base, std::uint32_t& pc, std::uint32_t& at) {
    auto& choices = run_.choices_;
    while (choices.size() > base) {
      PatternRun::Choice& choice = choices.back();
      if ((choice.instruction & kUndo) != 0) {
        run_.slots_[choice.instruction & ~kUndo] = choice.place;
        choices.pop_back();
        continue;
      }
      if (choice.more == kBranch) {
        pc = choice.instruction;
        at = choice.place;
        choices.pop_back();
        return true;
      }
      pc = choice.instruction + 1;
      if (change_run(choice, at)) {
        return true;
      }
    }
    return false;
  }

  /** Another length of a run; drops the choice behind the last one. */
  bool change_run(PatternRun::Choice& choice, std::uint32_t& at) {
    const PatternInstruction& run = program_.code[choice.instruction];
    if (run.op == Op::RunGreedy) { // `more` is where the shortest ends
      choice.place =
          static_cast<std::uint32_t>(previous_character(text_, choice.place));
      at = choice.place;
      if (at == choice.more) {
        run_.choices_.pop_back();
      }
      return true;
    }
    const std::uint32_t length = length_in(program_.sets[run.a], choice.place);
    at = choice.place += length;
    if (length == 0 || --choice.more == 0) { // characters that may follow
      run_.choices_.pop_back();
    }
    return length != 0;
  }

  /** Drops the choices above `base`; what they changed stays undoable. */
  void commit(std::size_t base) {
    auto& choices = run_.choices_;
    std::size_t kept = base;
    for (std::size_t i = base; i < choices.size(); ++i) {
      if ((choices[i].instruction & kUndo) != 0) {
        choices[kept++] = choices[i];
      }
    }
    choices.resize(kept);
  }

  /** Drops the choices above `base` and takes back what they changed. */
  void revert(std::size_t base) {
    auto& choices = run_.choices_;
    for (; choices.size() > base; choices.pop_back()) {
      if ((choices.back().instruction & kUndo) != 0) {
        run_.slots_[choices.back().instruction & ~kUndo] = choices.back().place;
      }
    }
  }

  /** Runs from instruction `pc` to Accept, at `target` if that is a place.
   * The choices of a match lie above those that were there before. */
  bool match(
      std::uint32_t pc,
      std::uint32_t at,
      std::uint32_t target,
      std::uint32_t& end) {
    const std::size_t base = run_.choices_.size();
    for (;;) {
      const PatternInstruction& instruction = program_.code[pc];
      spend(1);
      if (instruction.op == Op::Accept &&
          (target == kNowhere || at == target)) {
        end = at;
        return true;
      }
      if (!step(instruction, pc, at) && !back(base, pc, at)) {
        return false;
      }
    }
  }

  /** One instruction; false if it does not match. */
  bool step(
      const PatternInstruction& instruction,
      std::uint32_t& pc,
      std::uint32_t& at) {
    switch (instruction.op) {
      case Op::Set: {
        const std::uint32_t length =
            length_in(program_.sets[instruction.a], at);
        at += length;
        ++pc;
        return length != 0;
      }
      case Op::RunGreedy:
      case Op::RunLazy:
      case Op::RunPossessive:
        return run_of_set(instruction, pc++, at);
      case Op::Split:
        return split(instruction, pc, at);
      case Op::Jump:
        pc = instruction.a;
        return true;
      case Op::Save:
      case Op::LoopStart:
        set_slot(instruction.a, at);
        ++pc;
        return true;
      case Op::LoopEnd:
        pc = run_.slots_[instruction.a] == at ? instruction.b : pc + 1;
        return true;
      case Op::Atomic:
        return atomic(instruction, pc, at);
      case Op::Look:
        return look(instruction, pc, at);
      case Op::Assertion:
        ++pc;
        return holds(static_cast<Place>(instruction.a), at);
      case Op::BackReference:
        ++pc;
        return back_reference(program_.references[instruction.a], at);
      case Op::Keep:
        keep_ = at;
        ++pc;
        return true;
      case Op::Accept: // elsewhere than at the target
        return false;
    }
    return false;
  }

  bool run_of_set(
      const PatternInstruction& run,
      std::uint32_t pc,
      std::uint32_t& at) {
    const CharacterTable& set = program_.sets[run.a];
    const std::uint32_t most = run.op == Op::RunLazy ? run.b : run.c;
    const std::uint32_t begin = at;
    std::uint32_t shortest = at;
    std::uint32_t n = 0;
    while (n < most) {
      const std::uint32_t length = length_in(set, at);
      if (length == 0) {
        break;
      }
      at += length;
      if (++n == run.b) {
        shortest = at;
      }
    }
    spend(at - begin);
    if (n < run.b) {
      return false;
    }
    if (run.op == Op::RunLazy && run.c > run.b) {
      const std::uint32_t more = run.c == kNoLimit ? size_ + 1 : run.c - run.b;
      add_choice(pc, at, more);
    } else if (run.op == Op::RunGreedy && at > shortest) {
      add_choice(pc, at, shortest);
    }
    return true;
  }

  bool split(
      const PatternInstruction& instruction,
      std::uint32_t& pc,
      std::uint32_t at) {
    const PatternFilter& filter = program_.filters[instruction.c];
    const auto may = [&](std::uint32_t set) {
      return set == kAnySet || length_in(program_.sets[set], at) != 0;
    };
    const bool second = may(filter.second);
    if (!may(filter.first)) {
      pc = instruction.b;
      return second;
    }
    if (second) {
      add_choice(instruction.b, at, kBranch);
    }
    pc = instruction.a;
    return true;
  }

  bool atomic(
      const PatternInstruction& instruction,
      std::uint32_t& pc,
      std::uint32_t& at) {
    const std::size_t base = run_.choices_.size();
    if (!match(pc + 1, at, kNowhere, at)) {
      return false;
    }
    commit(base);
    pc = instruction.a;
    return true;
  }

  bool look(
      const PatternInstruction& instruction,
      std::uint32_t& pc,
      std::uint32_t at) {
    const PatternLook& look = program_.looks[instruction.b];
    const std::size_t base = run_.choices_.size();
    const std::uint32_t keep = keep_;
    const bool found = look.behind ? match_behind(look, pc + 1, at)
                                   : match(pc + 1, at, kNowhere, at);
    if (found && !look.negated) {
      commit(base);
    } else {
      revert(base);
      keep_ = keep;
    }
    pc = instruction.a;
    return found != look.negated;
  }

  /** Tries all beginnings, from the nearest, of what must end at `at`. */
  bool
  match_behind(const PatternLook& look, std::uint32_t pc, std::uint32_t at) {
    std::uint32_t begin = at;
    std::uint32_t end = 0;
    for (std::uint32_t n = 0; n <= look.max; ++n) {
      spend(1);
      if (n >= look.min && match(pc, begin, at, end)) {
        return true;
      }
      if (begin == 0) {
        return false;
      }
      begin = static_cast<std::uint32_t>(previous_character(text_, begin));
    }
    return false;
  }

  bool holds(Place place, std::uint32_t at) const {
    switch (place) {
      case Place::LineStart:
        return at == 0 || (text_[at - 1] == '\n' && at != size_);
      case Place::LineEnd:
        return at == size_ || text_[at] == '\n';
      case Place::TextStart:
        return at == 0;
      case Place::TextEnd:
        return at == size_;
      case Place::TextEndOrNewline:
        return at == size_ || (at + 1 == size_ && text_[at] == '\n');
      case Place::SearchStart:
        return at == search_start_;
      case Place::WordBoundary:
        return at_word_boundary(at);
      case Place::NotWordBoundary:
        return !at_word_boundary(at);
    }
    return false;
  }

  bool at_word_boundary(std::uint32_t at) const {
    const CharacterTable& words = program_.sets[program_.words];
    const bool before = at > 0 &&
        length_in(
            words, static_cast<std::uint32_t>(previous_character(text_, at))) !=
            0;
    return before != (length_in(words, at) != 0);
  }

  bool back_reference(
      const std::vector<std::uint32_t>& numbers,
      std::uint32_t& at) {
    for (auto number = numbers.rbegin(); number != numbers.rend(); ++number) {
      const std::uint32_t begin = run_.slots_[2 * *number - 2];
      const std::uint32_t end = run_.slots_[2 * *number - 1];
      if (begin == kNowhere || end == kNowhere || end < begin) {
        continue;
      }
      const std::uint32_t length = end - begin;
      spend(length);
      if (text_.substr(at).starts_with(text_.substr(begin, length))) {
        at += length;
        return true;
      }
    }
    return false;
  }

  const PatternProgram& program_;
  const std::string& pattern_;
  std::string_view text_;
  std::uint32_t size_;
  PatternRun& run_;
  std::uint32_t search_start_ = 0;
  std::uint32_t keep_ = 0;
};

PatternRegex::PatternRegex(const std::string& pattern, const std::string& where)
    : pattern_(pattern) {
  if (pattern.size() > kLongestPattern) {
    fail(
        ErrorKind::Unsupported,
        "[Tokenizer::parse] {}: found a pattern of {} bytes, expected at most "
        "{}. Use a model with another tokenizer",
        where,
        pattern.size(),
        kLongestPattern);
  }
  program_ = std::make_unique<const PatternProgram>(
      compile_pattern(parse_pattern(pattern, where), pattern, where));
}

PatternRegex::~PatternRegex() = default;
PatternRegex::PatternRegex(PatternRegex&&) noexcept = default;
PatternRegex& PatternRegex::operator=(PatternRegex&&) noexcept = default;

void PatternRegex::find_all(
    std::string_view text,
    PatternRun& run,
    std::vector<TextRange>& matches) const {
  matches.clear();
  if (text.size() > kLongestText) {
    fail(
        ErrorKind::Exhausted,
        "[Tokenizer::encode] found a text of {} bytes, expected at most {}. "
        "Use a shorter text",
        text.size(),
        kLongestText);
  }
  PatternMatcher matcher(*program_, pattern_, text, run);
  std::uint32_t last_end = kNowhere;
  TextRange found{};
  for (std::uint32_t at = 0; at <= text.size() && matcher.search(at, found);) {
    at = static_cast<std::uint32_t>(found.end);
    if (found.begin == found.end && found.end == last_end) {
      at += matcher.character_length(at); // the same nothing again
      continue;
    }
    matches.push_back(found);
    last_end = at;
  }
}

std::string PatternRegex::replace_all(
    std::string_view text,
    std::string_view content,
    PatternRun& run) const {
  std::vector<TextRange> matches;
  if (!text.empty()) { // the original does not look into nothing
    find_all(text, run, matches);
  }
  std::string out;
  std::size_t at = 0;
  for (const TextRange& match : matches) {
    out.append(text, at, match.begin - at);
    out += content;
    run.expect_room_for(out.size());
    at = match.end;
  }
  out.append(text, at);
  return out;
}

} // namespace optiq::text
