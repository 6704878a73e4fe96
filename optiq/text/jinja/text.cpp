// Code points, their classes and their case.
#include <algorithm>
#include <optional>

#include <fmt/format.h>
#include <utf8proc.h>

#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

utf8proc_category_t category(std::int32_t code_point) {
  return utf8proc_category(code_point);
}

bool is_letter(std::int32_t c) {
  const auto k = category(c);
  return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL ||
      k == UTF8PROC_CATEGORY_LT || k == UTF8PROC_CATEGORY_LM ||
      k == UTF8PROC_CATEGORY_LO;
}

bool is_cased(std::int32_t c) {
  const auto k = category(c);
  return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL ||
      k == UTF8PROC_CATEGORY_LT;
}

// Upper-case forms of more than one character (Unicode SpecialCasing.txt).
struct LongUpper {
  std::int32_t from;
  const char* to;
};
constexpr LongUpper kLongUpper[] = {
    {0xDF, "SS"},
    {0x149, "\xCA\xBCN"},
    {0x1F0, "J\xCC\x8C"},
    {0xFB00, "FF"},
    {0xFB01, "FI"},
    {0xFB02, "FL"},
    {0xFB03, "FFI"},
    {0xFB04, "FFL"},
    {0xFB05, "ST"},
    {0xFB06, "ST"},
};

void append_upper(Text& out, std::int32_t c) {
  for (const LongUpper& row : kLongUpper) {
    if (row.from == c) {
      out.append(row.to);
      return;
    }
  }
  append_utf8(out, utf8proc_toupper(c));
}

// The title-case form: of several characters, only the first is upper-case.
void append_title(Text& out, std::int32_t c) {
  Text made(nullptr);
  append_upper(made, c);
  const std::string& upper = made.str();
  const CodePoint first = code_point_at(upper, 0);
  if (first.next == upper.size()) {
    append_utf8(out, utf8proc_totitle(c));
    return;
  }
  const bool is_letters = static_cast<unsigned char>(upper[0]) < 0x80;
  out.append(std::string_view(upper).substr(0, first.next));
  for (const char rest : std::string_view(upper).substr(first.next)) {
    out.append(
        is_letters && rest >= 'A' && rest <= 'Z'
            ? static_cast<char>(rest + ('a' - 'A'))
            : rest);
  }
}

// Superscripts, subscripts and digits in circles: digits, but not decimal ones.
bool is_digit_form(std::int32_t c) {
  constexpr struct {
    std::int32_t first;
    std::int32_t last;
  } kForms[] = {{0xB2, 0xB3},       {0xB9, 0xB9},       {0x1369, 0x1371},
                {0x19DA, 0x19DA},   {0x2070, 0x2070},   {0x2074, 0x2079},
                {0x2080, 0x2089},   {0x2460, 0x2468},   {0x2474, 0x247C},
                {0x2488, 0x2490},   {0x24EA, 0x24EA},   {0x24F5, 0x24FD},
                {0x24FF, 0x24FF},   {0x2776, 0x277E},   {0x2780, 0x2788},
                {0x278A, 0x2792},   {0x10A40, 0x10A43}, {0x10E60, 0x10E68},
                {0x11052, 0x1105A}, {0x1F100, 0x1F10A}};
  return std::any_of(std::begin(kForms), std::end(kForms), [c](const auto& r) {
    return c >= r.first && c <= r.last;
  });
}

constexpr std::int32_t kCapitalSigma = 0x3A3;

void append_lower(Text& out, std::string_view text, std::size_t at) {
  const CodePoint c = code_point_at(text, at);
  if (c.value == 0x130) { // dotted capital I
    out.append("i\xCC\x87");
    return;
  }
  if (c.value != kCapitalSigma) {
    append_utf8(out, utf8proc_tolower(c.value));
    return;
  }
  // A sigma that ends a word has a form of its own.
  std::size_t before = at;
  while (before > 0 && (text[before - 1] & 0xC0) == 0x80) {
    --before;
  }
  const bool after_letter = at > 0 &&
      is_cased(code_point_at(text, before > 0 ? before - 1 : 0).value);
  const bool before_letter =
      c.next < text.size() && is_cased(code_point_at(text, c.next).value);
  append_utf8(out, after_letter && !before_letter ? 0x3C2 : 0x3C3);
}

using WriteOne = void (*)(Text&, std::string_view text, std::size_t at);

void write_each(Text& out, std::string_view text, WriteOne write) {
  out.reserve_more(text.size());
  for (std::size_t at = 0; at < text.size();) {
    write(out, text, at);
    at = code_point_at(text, at).next;
  }
}

void append_swapped(Text& out, std::string_view text, std::size_t at) {
  const std::int32_t c = code_point_at(text, at).value;
  if (category(c) == UTF8PROC_CATEGORY_LU) {
    append_lower(out, text, at);
  } else if (category(c) == UTF8PROC_CATEGORY_LL) {
    append_upper(out, c);
  } else {
    append_utf8(out, c);
  }
}

void append_casefolded(Text& out, std::string_view text, std::size_t at) {
  const CodePoint c = code_point_at(text, at);
  if (c.value < 0x80) {
    out.append(static_cast<char>(utf8proc_tolower(c.value)));
    return;
  }
  utf8proc_int32_t folded[4];
  int last_class = 0;
  const auto n = utf8proc_decompose_char(
      c.value, folded, 4, UTF8PROC_CASEFOLD, &last_class);
  if (n < 0 || n > 4) {
    out.append(text.substr(at, c.next - at));
  }
  for (int i = 0; i < n && n <= 4; ++i) {
    append_utf8(out, folded[i]);
  }
}

bool is_title_cased(std::string_view text) {
  bool found = false;
  bool after_cased = false;
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    at = c.next;
    const auto k = category(c.value);
    const bool begins = k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LT;
    const bool is_lower = k == UTF8PROC_CATEGORY_LL;
    if ((begins && after_cased) || (is_lower && !after_cased)) {
      return false;
    }
    after_cased = begins || is_lower;
    found |= after_cased;
  }
  return found;
}

bool is_identifier(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    const auto k = category(c.value);
    const bool starts =
        c.value == '_' || is_letter(c.value) || k == UTF8PROC_CATEGORY_NL;
    const bool goes_on = k == UTF8PROC_CATEGORY_ND ||
        k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_MC ||
        k == UTF8PROC_CATEGORY_PC;
    if (!starts && (at == 0 || !goes_on)) {
      return false;
    }
    at = c.next;
  }
  return !text.empty();
}

} // namespace

CodePoint code_point_at(std::string_view text, std::size_t at) {
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) {
    return {first, at + 1};
  }
  utf8proc_int32_t value = 0;
  const auto used = utf8proc_iterate(
      reinterpret_cast<const utf8proc_uint8_t*>(text.data() + at),
      static_cast<utf8proc_ssize_t>(text.size() - at),
      &value);
  if (used <= 0) {
    return {first, at + 1};
  }
  return {value, at + static_cast<std::size_t>(used)};
}

void append_utf8(Text& out, std::int32_t code_point) {
  if (code_point < 0x80) {
    out.append(static_cast<char>(code_point));
    return;
  }
  utf8proc_uint8_t bytes[4];
  const auto n = utf8proc_encode_char(code_point, bytes);
  out.append(std::string_view(
      reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(n)));
}

std::size_t code_point_before(std::string_view text, std::size_t at) {
  std::size_t begin = at - 1;
  while (begin > 0 && at - begin < 4 && (text[begin] & 0xC0) == 0x80) {
    --begin;
  }
  return code_point_at(text, begin).next == at ? begin : at - 1;
}

std::size_t count_code_points(std::string_view text) {
  std::size_t n = 0;
  for (std::size_t at = 0; at < text.size(); ++n) {
    at = code_point_at(text, at).next;
  }
  return n;
}

std::size_t offset_of(std::string_view text, std::size_t index) {
  std::size_t at = 0;
  for (; index > 0 && at < text.size(); --index) {
    at = code_point_at(text, at).next;
  }
  return at;
}

std::vector<std::size_t> code_point_offsets(std::string_view text) {
  std::vector<std::size_t> offsets;
  offsets.reserve(count_code_points(text) + 1);
  for (std::size_t at = 0; at < text.size();) {
    offsets.push_back(at);
    at = code_point_at(text, at).next;
  }
  offsets.push_back(text.size());
  return offsets;
}

bool is_space(std::int32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 ||
      c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
      c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_printable(std::int32_t c) {
  if (c >= 0x20 && c < 0x7F) {
    return true;
  }
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

bool is_word(std::int32_t c) {
  if (c == '_' || is_letter(c)) {
    return true;
  }
  const auto k = category(c);
  return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL ||
      k == UTF8PROC_CATEGORY_NO || k == UTF8PROC_CATEGORY_MN ||
      k == UTF8PROC_CATEGORY_MC;
}

bool is_decimal_digit(std::int32_t c) {
  return category(c) == UTF8PROC_CATEGORY_ND;
}

bool is_word_character(std::int32_t c) {
  const auto k = category(c);
  return c == '_' || is_letter(c) || k == UTF8PROC_CATEGORY_ND ||
      k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

namespace {

// Of one character; nothing when it does not count for the class.
std::optional<bool> fits(std::int32_t c, CharClass kind) {
  const auto k = category(c);
  const bool is_decimal = k == UTF8PROC_CATEGORY_ND;
  const bool is_number =
      is_decimal || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
  switch (kind) {
    case CharClass::AlphaNumeric:
      return is_letter(c) || is_number;
    case CharClass::Alpha:
      return is_letter(c);
    case CharClass::Ascii:
      return c < 0x80;
    case CharClass::Decimal:
      return is_decimal;
    case CharClass::Digit:
      return is_decimal || is_digit_form(c);
    case CharClass::Numeric:
      return is_number;
    case CharClass::Printable:
      return is_printable(c);
    case CharClass::Space:
      return is_space(c);
    default: // Lower and Upper
      return is_cased(c)
          ? std::optional<bool>(
                (k == UTF8PROC_CATEGORY_LL) == (kind == CharClass::Lower))
          : std::nullopt;
  }
}

} // namespace

bool all_are(std::string_view text, CharClass kind) {
  if (kind == CharClass::Title) {
    return is_title_cased(text);
  }
  if (kind == CharClass::Identifier) {
    return is_identifier(text);
  }
  bool found = kind == CharClass::Ascii || kind == CharClass::Printable;
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    at = c.next;
    const std::optional<bool> one = fits(c.value, kind);
    if (one && !*one) {
      return false;
    }
    found |= one.has_value();
  }
  return found;
}

void write_upper(Text& out, std::string_view text) {
  write_each(out, text, [](Text& to, std::string_view from, std::size_t at) {
    append_upper(to, code_point_at(from, at).value);
  });
}

void write_lower(Text& out, std::string_view text) {
  write_each(out, text, append_lower);
}

void write_casefolded(Text& out, std::string_view text) {
  write_each(out, text, append_casefolded);
}

void write_swapped(Text& out, std::string_view text) {
  write_each(out, text, append_swapped);
}

void write_capitalized(Text& out, std::string_view text) {
  if (text.empty()) {
    return;
  }
  const CodePoint first = code_point_at(text, 0);
  append_title(out, first.value);
  for (std::size_t at = first.next; at < text.size();) {
    append_lower(out, text, at);
    at = code_point_at(text, at).next;
  }
}

void write_title(Text& out, std::string_view text) {
  bool begins = true;
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    if (begins) {
      append_title(out, c.value);
    } else {
      append_lower(out, text, at);
    }
    begins = !is_cased(c.value);
    at = c.next;
  }
}

void write_titled_words(Text& out, std::string_view text) {
  constexpr std::string_view kBreaks = "-({[<";
  bool begins = true;
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    if (begins) {
      append_upper(out, c.value);
    } else {
      append_lower(out, text, at);
    }
    begins = is_space(c.value) ||
        (c.value < 0x80 &&
         kBreaks.find(static_cast<char>(c.value)) != std::string_view::npos);
    at = c.next;
  }
}

void write_expanded_tabs(Text& out, std::string_view text, std::int64_t size) {
  std::int64_t column = 0;
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    if (c.value == '\t') {
      const std::int64_t n = size > 0 ? size - column % size : 0;
      out.append_times(" ", static_cast<std::size_t>(n));
      column = size > 0 ? 0 : column;
    } else {
      out.append(text.substr(at, c.next - at));
      column = c.value == '\n' || c.value == '\r' ? 0 : column + 1;
    }
    at = c.next;
  }
}

} // namespace optiq::text::jinja
