// textwrap.wrap of Python, which the filter `wordwrap` applies to each line.
#include <algorithm>

#include "optiq/base/error.h"
#include "optiq/text/jinja/builtins_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

// What the rules ask of a code point.
bool is_wrap_space(std::int32_t c) {
  return (c >= '\t' && c <= '\r') || c == ' ';
}
bool is_letter(std::int32_t c) {
  return is_word_character(c) && !is_decimal_digit(c);
}
bool is_word_punctuation(std::int32_t c) {
  return is_word_character(c) ||
      (c < 0x80 &&
       std::string_view("!\"'&.,?").find(static_cast<char>(c)) !=
           std::string_view::npos);
}

/** One line as code points, which pieces of it are ranges of. */
class Wrapper {
 public:
  Wrapper(
      const Heap& heap,
      std::string_view line,
      const WrapStyle& style,
      const OnPart& on_line)
      : line_(line),
        style_(style),
        on_line_(on_line),
        charge_(heap.budget(), (line.size() + 1) * (sizeof(std::size_t) + 4)) {
    offsets_ = code_point_offsets(line);
    for (std::size_t i = 0; i + 1 < offsets_.size(); ++i) {
      points_.push_back(code_point_at(line, offsets_[i]).value);
    }
  }

  void run() {
    std::size_t at = 0; // begin of the chunk that is next
    std::size_t end = end_of_chunk(0);
    bool has_lines = false;
    const auto advance = [&] {
      at = end;
      end = end_of_chunk(at);
    };
    while (at < points_.size()) {
      if (has_lines && is_blank(at, end)) {
        advance();
      }
      const std::size_t begin = at;
      std::size_t last = at; // begin of the chunk taken last
      while (at < points_.size() && end - begin <= style_.width) {
        last = at;
        advance();
      }
      std::size_t stop = at;
      if (at < points_.size() && end - at > style_.width) {
        const std::size_t cut = break_long_word(begin, at, end);
        // Also a piece without a character keeps a blank before it.
        last = style_.breaks_words || begin == at ? at : last;
        stop = at = cut;
        if (at == end) {
          advance();
        }
      }
      if (last < stop && is_blank(last, stop)) {
        stop = last;
      }
      if (begin < stop) {
        on_line_(
            line_.substr(offsets_[begin], offsets_[stop] - offsets_[begin]));
        has_lines = true;
      }
    }
  }

 private:
  // Where a word that fits no line is cut: at `at` when the line before it is
  // not empty and words stay whole.
  std::size_t
  break_long_word(std::size_t begin, std::size_t at, std::size_t end) const {
    if (!style_.breaks_words) {
      return begin == at ? end : at;
    }
    const std::size_t space_left = style_.width - (at - begin);
    if (style_.breaks_at_hyphens) {
      for (std::size_t i = at + space_left; i-- > at + 1;) {
        if (points_[i] == '-') {
          const bool has_other = std::any_of(
              points_.begin() + static_cast<std::ptrdiff_t>(at),
              points_.begin() + static_cast<std::ptrdiff_t>(i),
              [](std::int32_t c) { return c != '-'; });
          if (has_other) {
            return i + 1;
          }
          break;
        }
      }
    }
    return at + space_left;
  }

  bool is_blank(std::size_t begin, std::size_t end) const {
    return std::all_of(
        points_.begin() + static_cast<std::ptrdiff_t>(begin),
        points_.begin() + static_cast<std::ptrdiff_t>(end),
        is_space);
  }

  std::int32_t point(std::size_t i) const {
    return i < points_.size() ? points_[i] : 0;
  }

  // Dashes, two or more, before a word: the offset after them, or `at`.
  std::size_t skip_dashes(std::size_t at) const {
    std::size_t end = at;
    while (point(end) == '-') {
      ++end;
    }
    return end - at >= 2 && is_word_character(point(end)) ? end : at;
  }

  // Spaces, a dash between words, or a word up to and with a hyphen.
  std::size_t end_of_chunk(std::size_t at) const {
    if (at >= points_.size()) {
      return at;
    }
    std::size_t end = at + 1;
    if (is_wrap_space(points_[at])) {
      while (end < points_.size() && is_wrap_space(points_[end])) {
        ++end;
      }
      return end;
    }
    if (style_.breaks_at_hyphens && at > 0 &&
        is_word_punctuation(points_[at - 1]) && skip_dashes(at) > at) {
      return skip_dashes(at);
    }
    for (; end < points_.size() && !is_wrap_space(points_[end]); ++end) {
      if (!style_.breaks_at_hyphens || points_[end] != '-') {
        continue;
      }
      if (is_hyphen(end)) {
        return end + 1;
      }
      if (is_word_punctuation(points_[end - 1]) && skip_dashes(end) > end) {
        return end;
      }
    }
    return end;
  }

  // A hyphen at `i` between parts of a word: two letters, or "a-b", before it,
  // two letters after it.
  bool is_hyphen(std::size_t i) const {
    const auto letter = [this](std::size_t k) {
      return k < points_.size() && is_letter(points_[k]);
    };
    const bool after_two = i >= 2 && letter(i - 1) && letter(i - 2);
    const bool after_part = i >= 3 && letter(i - 3) && points_[i - 2] == '-' &&
        is_word_punctuation(points_[i - 1]);
    const bool before_two = letter(i + 1) &&
        (letter(i + 2) || (point(i + 2) == '-' && letter(i + 3)));
    return (after_two || after_part) && before_two;
  }

  std::string_view line_;
  const WrapStyle& style_;
  const OnPart& on_line_;
  Charge charge_;
  std::vector<std::size_t> offsets_;
  std::vector<std::int32_t> points_;
};

} // namespace

void wrap_line(
    const Heap& heap,
    std::string_view line,
    const WrapStyle& style,
    const OnPart& on_line) {
  Wrapper(heap, line, style, on_line).run();
}

} // namespace optiq::text::jinja
