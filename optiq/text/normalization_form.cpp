#include <algorithm>
#include <cassert>
#include <iterator>

#include <utf8proc.h>

#include "optiq/text/normalization_form_impl.h"
#include "optiq/text/unicode_impl.h"

namespace optiq::text {
namespace {

constexpr auto kNfcOptions =
    static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);

utf8proc_option_t options_of(NormalizationForm form) {
  return static_cast<utf8proc_option_t>(
      UTF8PROC_STABLE |
      (form.composed ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
      (form.compatible ? UTF8PROC_COMPAT : 0));
}

int combining_class(utf8proc_int32_t code_point) {
  return utf8proc_get_property(code_point)->combining_class;
}

void append_decomposed(
    std::vector<utf8proc_int32_t>& out,
    std::uint32_t code_point,
    utf8proc_option_t options) {
  utf8proc_int32_t parts[24]; // compatible decompositions have at most 18
  int boundary = 0;
  const utf8proc_ssize_t n = utf8proc_decompose_char(
      static_cast<utf8proc_int32_t>(code_point),
      parts,
      std::size(parts),
      options,
      &boundary);
  assert(n > 0 && n <= static_cast<utf8proc_ssize_t>(std::size(parts)));
  out.insert(out.end(), parts, parts + n);
}

/** Each run of marks in the order of their combining classes. utf8proc_map
 * does it too, in quadratic time: a megabyte of marks would take minutes. */
void sort_marks(std::vector<utf8proc_int32_t>& code_points) {
  const auto is_mark = [](utf8proc_int32_t c) {
    return combining_class(c) != 0;
  };
  auto at = code_points.begin();
  while (at != code_points.end()) {
    const auto begin = std::find_if(at, code_points.end(), is_mark);
    at = std::find_if_not(begin, code_points.end(), is_mark);
    std::stable_sort(begin, at, [](auto a, auto b) {
      return combining_class(a) < combining_class(b);
    });
  }
}

void append_normalized(
    std::string& out,
    std::string_view text,
    utf8proc_option_t options) {
  std::vector<utf8proc_int32_t> code_points;
  for (std::size_t at = 0; at < text.size();) {
    const DecodedCharacter c = decode_character(text.data() + at);
    append_decomposed(code_points, c.code_point, options);
    at += c.length;
  }
  sort_marks(code_points);
  auto n = static_cast<utf8proc_ssize_t>(code_points.size());
  if ((options & UTF8PROC_COMPOSE) != 0) {
    n = utf8proc_normalize_utf32(code_points.data(), n, options);
  }
  for (utf8proc_ssize_t i = 0; i < n; ++i) {
    append_utf8(out, static_cast<std::uint32_t>(code_points[i]));
  }
}

/**
 * One pass that finds the runs NFC might change: marks out of order or
 * characters that may compose or decompose, with the character before them.
 * utf8proc sees only those.
 */
class NfcScanner {
 public:
  explicit NfcScanner(std::string_view text) : text_(text) {}

  std::string run() {
    std::size_t at = 0;
    while (at < text_.size()) {
      const DecodedCharacter c = decode_character(text_.data() + at);
      const std::uint16_t classes = classes_.of(c.code_point);
      if ((classes & (kIsNfcMark | kIsNfcUnstable)) == 0) {
        close_run(at);
        // A young character is nobody's base: newer data might compose it.
        run_begin_ = (classes & kIsNfcYoung) != 0 ? at + c.length : at;
      } else {
        note(c.code_point, classes);
      }
      at += c.length;
    }
    close_run(at);
    if (out_.empty() && copied_ == 0) {
      return std::string(text_);
    }
    out_.append(text_, copied_);
    return std::move(out_);
  }

 private:
  void note(std::uint32_t code_point, std::uint16_t classes) {
    const int combining =
        combining_class(static_cast<utf8proc_int32_t>(code_point));
    const bool swapped = combining != 0 && combining < last_combining_;
    changes_ |= (classes & kIsNfcUnstable) != 0 || swapped;
    last_combining_ = combining;
  }

  /** Ends the run of marks before `end`; normalizes it where needed. */
  void close_run(std::size_t end) {
    if (changes_) {
      out_.append(text_, copied_, run_begin_ - copied_);
      append_normalized(
          out_, text_.substr(run_begin_, end - run_begin_), kNfcOptions);
      copied_ = end;
    }
    changes_ = false;
    last_combining_ = 0;
  }

  std::string_view text_;
  const CharacterClasses& classes_ = CharacterClasses::instance();
  std::string out_;
  std::size_t copied_ = 0; // bytes of text_ that are in out_, in their form C
  std::size_t run_begin_ = 0;
  bool changes_ = false;
  int last_combining_ = 0;
};

} // namespace

std::string normalize_nfc(std::string_view text) {
  return NfcScanner(text).run();
}

std::string normalize(std::string_view text, NormalizationForm form) {
  if (form.composed && !form.compatible) {
    return normalize_nfc(text);
  }
  const std::uint16_t young =
      form.compatible ? kIsNfcYoung | kIsCompatibilityYoung : kIsNfcYoung;
  const utf8proc_option_t options = options_of(form);
  const CharacterClasses& classes = CharacterClasses::instance();
  std::string out;
  std::size_t begin = 0; // of what is not in `out` yet
  for (std::size_t at = 0; at < text.size();) {
    const DecodedCharacter c = decode_character(text.data() + at);
    const std::size_t end = at + c.length;
    if ((classes.of(c.code_point) & young) != 0) {
      append_normalized(out, text.substr(begin, at - begin), options);
      out += text.substr(at, c.length);
      begin = end;
    }
    at = end;
  }
  append_normalized(out, text.substr(begin), options);
  return out;
}

} // namespace optiq::text
