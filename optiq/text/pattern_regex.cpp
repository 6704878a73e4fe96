#define PCRE2_CODE_UNIT_WIDTH 8
#include <cctype>
#include <span>

#include <pcre2.h>

#include "optiq/base/error.h"
#include "optiq/text/pattern_regex_impl.h"
#include "optiq/text/unicode_tables.h"

namespace optiq::text {
namespace {

// A pattern comes from a file: what it may use is bounded.
constexpr std::uint32_t kMatchLimit = 10'000'000; // steps of one match
constexpr std::uint32_t kDepthLimit = 10'000;
constexpr std::uint32_t kHeapLimitKib = 64 << 10;
constexpr std::size_t kJitStackBytes = 4u << 20;
constexpr std::size_t kLongestPattern = 10'000;

std::string ranges_text(std::span<const CodePointRange> ranges) {
  std::string out;
  for (const CodePointRange& range : ranges) {
    out += fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", range.first, range.last);
  }
  return out;
}

/** Rewrites a pattern construct by construct; refuses what it does not know. */
class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where)
      : pattern_(pattern), where_(where) {}

  std::string translate() {
    while (at_ < pattern_.size()) {
      step();
    }
    return std::move(out_);
  }

 private:
  bool looking_at(std::string_view text) const {
    return pattern_.substr(at_).starts_with(text);
  }

  [[noreturn]] void refuse(std::string_view construct) const {
    fail(
        ErrorKind::Unsupported,
        "[Tokenizer::parse] {}: found {} at byte {} of the pattern '{}', "
        "which this version does not implement. Use a model with another "
        "tokenizer",
        where_,
        construct,
        at_,
        pattern_);
  }

  void copy(std::size_t n) {
    out_ += pattern_.substr(at_, n);
    at_ += n;
  }

  void step() {
    const char c = pattern_[at_];
    switch (c) {
      case '\\':
        escape(false);
        break;
      case '[':
        character_set();
        break;
      case '(':
        open_group();
        break;
      case ')':
        if (any_case_.empty()) {
          refuse("a ')' without '('");
        }
        any_case_.pop_back();
        copy(1);
        break;
      case '|':
        copy(1);
        break;
      case '?':
      case '*':
      case '+':
        copy(1);
        if (looking_at("+") || looking_at("?")) {
          copy(1); // possessive or lazy, the same in both
        }
        break;
      case '{':
        repetition();
        break;
      case '.':
      case '^':
      case '$':
        refuse("an unescaped '.', '^' or '$'");
      default:
        literal();
    }
  }

  void open_group() {
    const bool outer = !any_case_.empty() && any_case_.back();
    for (const char* opening : {"(?:", "(?i:", "(?=", "(?!"}) {
      if (looking_at(opening)) {
        any_case_.push_back(outer || std::string_view(opening) == "(?i:");
        copy(std::string_view(opening).size());
        return;
      }
    }
    if (looking_at("(?") || looking_at("(*")) {
      refuse("a group of an unknown kind");
    }
    any_case_.push_back(outer);
    copy(1);
  }

  void repetition() {
    const std::size_t end = pattern_.find('}', at_);
    const std::string_view inside = pattern_.substr(
        at_ + 1, end == std::string_view::npos ? 0 : end - at_ - 1);
    if (inside.empty() ||
        !std::isdigit(static_cast<unsigned char>(inside[0])) ||
        inside.find_first_not_of("0123456789,") != std::string_view::npos) {
      refuse("a '{' that is no repetition");
    }
    copy(inside.size() + 2);
    if (looking_at("+") || looking_at("?")) {
      refuse("a possessive or lazy {m,n}");
    }
  }

  /** A character that stands for itself, possibly of several bytes. */
  void literal() {
    if (!any_case_.empty() && any_case_.back()) {
      if (static_cast<unsigned char>(pattern_[at_]) >= 0x80) {
        refuse("a non-ASCII character in (?i:)");
      }
      // These fold into one character in Oniguruma, not in PCRE2.
      for (const char* pair : {"ss", "ff", "fi", "fl", "st"}) {
        if (std::tolower(pattern_[at_]) == pair[0] &&
            at_ + 1 < pattern_.size() &&
            std::tolower(static_cast<unsigned char>(pattern_[at_ + 1])) ==
                pair[1]) {
          refuse("a pair of letters in (?i:) that has a ligature");
        }
      }
    }
    copy(1);
  }

  /** The class that \p{L}, \p{N}, \p{M} or \s at `at_` names; moves on. */
  std::span<const CodePointRange> named_class() {
    const UnicodeTables tables = unicode_tables();
    if (pattern_[at_ + 1] == 's' || pattern_[at_ + 1] == 'S') {
      at_ += 2;
      return tables.space;
    }
    const std::string_view name = pattern_.substr(at_ + 2, 3);
    at_ += 5;
    if (name == "{L}") {
      return tables.letter;
    }
    if (name == "{N}") {
      return tables.number;
    }
    if (name == "{M}") {
      return tables.mark;
    }
    at_ -= 5;
    refuse("a Unicode property other than L, N, M");
  }

  void escape(bool in_set) {
    const char c = at_ + 1 < pattern_.size() ? pattern_[at_ + 1] : '\0';
    if (c == 'p' || c == 'P' || c == 's' || c == 'S') {
      const bool negated = c == 'P' || c == 'S';
      if (!any_case_.empty() && any_case_.back()) {
        refuse("a character class in (?i:)");
      }
      if (negated && in_set) {
        refuse("a negated class inside [...]");
      }
      const std::string ranges = ranges_text(named_class());
      out_ += in_set ? ranges : (negated ? "[^" : "[") + ranges + "]";
    } else if (
        c == 'r' || c == 'n' || c == 't' ||
        std::ispunct(static_cast<unsigned char>(c)) != 0) {
      copy(2);
    } else {
      refuse("an unknown escape");
    }
  }

  void character_set() {
    copy(1);
    if (looking_at("^")) {
      copy(1);
    }
    if (looking_at("]")) {
      refuse("a ']' right after '['");
    }
    while (!looking_at("]")) {
      if (at_ == pattern_.size() || looking_at("[") || looking_at("&&")) {
        refuse("an unclosed, nested or intersected [...]");
      }
      if (looking_at("\\")) {
        escape(true);
      } else if (
          !any_case_.empty() && any_case_.back() &&
          std::isalpha(static_cast<unsigned char>(pattern_[at_])) == 0) {
        refuse("a set in (?i:) of more than letters");
      } else {
        copy(1);
      }
    }
    copy(1);
  }

  std::string_view pattern_;
  const std::string& where_;
  std::size_t at_ = 0;
  std::string out_;
  std::vector<bool> any_case_; // one per open group
};

struct FreeMatchData {
  void operator()(pcre2_match_data* data) const {
    pcre2_match_data_free(data);
  }
};

} // namespace

struct PatternRegex::Code {
  pcre2_code* code = nullptr;
  std::string pattern;

  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() {
    pcre2_code_free(code);
  }
};

PatternRegex::PatternRegex(const std::string& pattern, const std::string& where)
    : code_(std::make_unique<Code>()) {
  if (pattern.size() > kLongestPattern) {
    fail(
        ErrorKind::Unsupported,
        "[Tokenizer::parse] {}: found a pattern of {} bytes, expected at most "
        "{}. Use a model with another tokenizer",
        where,
        pattern.size(),
        kLongestPattern);
  }
  const std::string translated = Translator(pattern, where).translate();
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_->pattern = pattern;
  code_->code = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated.data()),
      translated.size(),
      PCRE2_UTF,
      &error,
      &offset,
      nullptr);
  std::uint32_t matches_empty = 0;
  if (code_->code != nullptr) {
    pcre2_pattern_info(code_->code, PCRE2_INFO_MATCHEMPTY, &matches_empty);
  }
  if (code_->code == nullptr || matches_empty != 0) {
    fail(
        ErrorKind::Unsupported,
        "[Tokenizer::parse] {}: found the pattern '{}', expected one that is "
        "well-formed and never matches nothing. Use a model with another "
        "tokenizer",
        where,
        pattern);
  }
  // Without a JIT on this platform the interpreter gives the same matches.
  pcre2_jit_compile(code_->code, PCRE2_JIT_COMPLETE);
}

PatternRegex::~PatternRegex() = default;
PatternRegex::PatternRegex(PatternRegex&&) noexcept = default;
PatternRegex& PatternRegex::operator=(PatternRegex&&) noexcept = default;

std::vector<TextRange> PatternRegex::find_all(std::string_view text) const {
  const std::unique_ptr<pcre2_match_data, FreeMatchData> data(
      pcre2_match_data_create_from_pattern(code_->code, nullptr));
  const std::
      unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)>
          context(
              pcre2_match_context_create(nullptr), pcre2_match_context_free);
  const std::unique_ptr<pcre2_jit_stack, decltype(&pcre2_jit_stack_free)> stack(
      pcre2_jit_stack_create(32 << 10, kJitStackBytes, nullptr),
      pcre2_jit_stack_free);
  pcre2_set_match_limit(context.get(), kMatchLimit);
  pcre2_set_depth_limit(context.get(), kDepthLimit);
  pcre2_set_heap_limit(context.get(), kHeapLimitKib);
  pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
  std::vector<TextRange> ranges;
  for (std::size_t at = 0; at < text.size();) {
    const int found = pcre2_match(
        code_->code,
        reinterpret_cast<PCRE2_SPTR>(text.data()),
        text.size(),
        at,
        PCRE2_NO_UTF_CHECK, // valid by contract; a check costs O(n) a match
        data.get(),
        context.get());
    if (found == PCRE2_ERROR_NOMATCH) {
      break;
    }
    if (found < 0) {
      fail(
          ErrorKind::Exhausted,
          "[Tokenizer::encode] pattern '{}': found PCRE2 error {} after byte "
          "{}, expected a match within {} steps. Use shorter text",
          code_->pattern,
          found,
          at,
          kMatchLimit);
    }
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data.get());
    ranges.push_back({bounds[0], bounds[1]});
    at = bounds[1];
  }
  return ranges;
}

} // namespace optiq::text
