#include <algorithm>
#include <array>

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

void append_upper(std::string& out, std::int32_t c) {
  for (const LongUpper& row : kLongUpper) {
    if (row.from == c) {
      out += row.to;
      return;
    }
  }
  append_utf8(out, utf8proc_toupper(c));
}

// The title-case form: of several characters, only the first is upper-case.
void append_title(std::string& out, std::int32_t c) {
  std::string upper;
  append_upper(upper, c);
  const CodePoint first = code_point_at(upper, 0);
  if (first.next == upper.size()) {
    append_utf8(out, utf8proc_totitle(c));
    return;
  }
  const bool is_letters = static_cast<unsigned char>(upper[0]) < 0x80;
  out += upper.substr(0, first.next);
  for (const char rest : std::string_view(upper).substr(first.next)) {
    out += is_letters && rest >= 'A' && rest <= 'Z'
        ? static_cast<char>(rest + ('a' - 'A'))
        : rest;
  }
}

constexpr std::int32_t kCapitalSigma = 0x3A3;

void append_lower(std::string& out, std::string_view text, std::size_t at) {
  const CodePoint c = code_point_at(text, at);
  if (c.value == 0x130) { // dotted capital I
    out += "i\xCC\x87";
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

bool is_line_end(std::int32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 ||
      c == 0x2028 || c == 0x2029;
}

std::size_t previous(std::string_view text, std::size_t at) {
  std::size_t begin = at - 1;
  while (begin > 0 && at - begin < 4 && (text[begin] & 0xC0) == 0x80) {
    --begin;
  }
  return code_point_at(text, begin).next == at ? begin : at - 1;
}

bool contains(std::string_view chars, std::int32_t c) {
  for (std::size_t at = 0; at < chars.size();) {
    const CodePoint p = code_point_at(chars, at);
    if (p.value == c) {
      return true;
    }
    at = p.next;
  }
  return false;
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

void append_utf8(std::string& out, std::int32_t code_point) {
  if (code_point < 0x80) {
    out += static_cast<char>(code_point);
    return;
  }
  utf8proc_uint8_t bytes[4];
  const auto n = utf8proc_encode_char(code_point, bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(n));
}

std::size_t count_code_points(std::string_view text) {
  std::size_t n = 0;
  for (std::size_t at = 0; at < text.size(); ++n) {
    at = code_point_at(text, at).next;
  }
  return n;
}

std::vector<std::size_t> code_point_offsets(std::string_view text) {
  std::vector<std::size_t> offsets;
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

bool all_are(std::string_view text, CharClass kind) {
  bool found = false;
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    at = c.next;
    const auto k = category(c.value);
    const bool is_digit = k == UTF8PROC_CATEGORY_ND;
    const bool is_number =
        is_digit || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
    bool fits = true;
    switch (kind) {
      case CharClass::AlphaNumeric:
        fits = is_letter(c.value) || is_number;
        break;
      case CharClass::Alpha:
        fits = is_letter(c.value);
        break;
      case CharClass::Digit:
        fits = is_digit;
        break;
      case CharClass::Numeric:
        fits = is_number;
        break;
      case CharClass::Space:
        fits = is_space(c.value);
        break;
      case CharClass::Lower:
      case CharClass::Upper: {
        if (!is_cased(c.value)) {
          continue;
        }
        const bool is_lower = k == UTF8PROC_CATEGORY_LL;
        fits = is_lower == (kind == CharClass::Lower);
        break;
      }
    }
    if (!fits) {
      return false;
    }
    found = true;
  }
  return found;
}

std::string to_upper(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    append_upper(out, c.value);
    at = c.next;
  }
  return out;
}

std::string to_lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    append_lower(out, text, at);
    at = code_point_at(text, at).next;
  }
  return out;
}

std::string capitalize(std::string_view text) {
  if (text.empty()) {
    return {};
  }
  const CodePoint first = code_point_at(text, 0);
  std::string out;
  append_title(out, first.value);
  for (std::size_t at = first.next; at < text.size();) {
    append_lower(out, text, at);
    at = code_point_at(text, at).next;
  }
  return out;
}

std::string to_title(std::string_view text, bool by_letters) {
  constexpr std::string_view kBreaks = "-({[<";
  std::string out;
  bool begins = true;
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    if (begins && by_letters) {
      append_title(out, c.value);
    } else if (begins) {
      append_upper(out, c.value);
    } else {
      append_lower(out, text, at);
    }
    begins = by_letters ? !is_cased(c.value)
                        : is_space(c.value) || contains(kBreaks, c.value);
    at = c.next;
  }
  return out;
}

std::string_view
strip(std::string_view text, Side side, const std::string_view* chars) {
  const auto drops = [chars](std::int32_t c) {
    return chars == nullptr ? is_space(c) : contains(*chars, c);
  };
  std::size_t begin = 0;
  std::size_t end = text.size();
  while (side != Side::Right && begin < end) {
    const CodePoint c = code_point_at(text, begin);
    if (!drops(c.value)) {
      break;
    }
    begin = c.next;
  }
  while (side != Side::Left && end > begin) {
    const std::size_t at = previous(text, end);
    if (!drops(code_point_at(text, at).value)) {
      break;
    }
    end = at;
  }
  return text.substr(begin, end - begin);
}

std::vector<std::string_view>
split_space(std::string_view text, std::int64_t max_splits, bool from_right) {
  std::vector<std::string_view> parts;
  const Side near_side = from_right ? Side::Right : Side::Left;
  std::string_view rest = strip(text, near_side);
  while (!rest.empty()) {
    if (max_splits >= 0 &&
        parts.size() == static_cast<std::size_t>(max_splits)) {
      parts.push_back(rest); // with the spaces at its far side
      break;
    }
    std::size_t at = from_right ? rest.size() : 0;
    while (from_right ? at > 0 : at < rest.size()) {
      const std::size_t begin = from_right ? previous(rest, at) : at;
      const CodePoint c = code_point_at(rest, begin);
      if (is_space(c.value)) {
        break;
      }
      at = from_right ? begin : c.next;
    }
    if (from_right) {
      parts.push_back(rest.substr(at));
      rest = strip(rest.substr(0, at), near_side);
    } else {
      parts.push_back(rest.substr(0, at));
      rest = strip(rest.substr(at), near_side);
    }
  }
  if (from_right) {
    std::reverse(parts.begin(), parts.end());
  }
  return parts;
}

std::vector<std::string_view> split(
    std::string_view text,
    std::string_view separator,
    std::int64_t max_splits,
    bool from_right) {
  std::vector<std::string_view> parts;
  while (max_splits < 0 ||
         parts.size() < static_cast<std::size_t>(max_splits)) {
    const std::size_t at =
        from_right ? text.rfind(separator) : text.find(separator);
    if (at == std::string_view::npos) {
      break;
    }
    if (from_right) {
      parts.push_back(text.substr(at + separator.size()));
      text = text.substr(0, at);
    } else {
      parts.push_back(text.substr(0, at));
      text = text.substr(at + separator.size());
    }
  }
  parts.push_back(text);
  if (from_right) {
    std::reverse(parts.begin(), parts.end());
  }
  return parts;
}

std::vector<std::string_view> split_lines(
    std::string_view text,
    bool keep_ends) {
  std::vector<std::string_view> lines;
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    std::size_t next = c.next;
    if (is_line_end(c.value)) {
      if (c.value == '\r' && next < text.size() && text[next] == '\n') {
        ++next;
      }
      lines.push_back(text.substr(begin, (keep_ends ? next : at) - begin));
      begin = next;
    }
    at = next;
  }
  if (begin < text.size()) {
    lines.push_back(text.substr(begin));
  }
  return lines;
}

std::size_t replaced_size(
    std::string_view text,
    std::string_view old_text,
    std::string_view new_text,
    std::int64_t max_count) {
  std::size_t n = 0;
  if (old_text.empty()) {
    n = count_code_points(text) + 1;
  } else {
    for (std::size_t at = text.find(old_text); at != std::string_view::npos;
         at = text.find(old_text, at + old_text.size())) {
      ++n;
    }
  }
  if (max_count >= 0) {
    n = std::min(n, static_cast<std::size_t>(max_count));
  }
  return text.size() + n * new_text.size() - n * old_text.size();
}

std::string replace(
    std::string_view text,
    std::string_view old_text,
    std::string_view new_text,
    std::int64_t max_count) {
  std::string out;
  std::int64_t done = 0;
  std::size_t at = 0;
  while (max_count < 0 || done < max_count) {
    if (old_text.empty()) { // between all characters, and at both ends
      out += new_text;
      ++done;
      if (at == text.size()) {
        break;
      }
      const std::size_t next = code_point_at(text, at).next;
      out += text.substr(at, next - at);
      at = next;
      continue;
    }
    const std::size_t found = text.find(old_text, at);
    if (found == std::string_view::npos) {
      break;
    }
    out += text.substr(at, found - at);
    out += new_text;
    at = found + old_text.size();
    ++done;
  }
  out += text.substr(at);
  return out;
}

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string quote(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const bool has_double = text.find('"') != std::string_view::npos;
  const char mark = has_single && !has_double ? '"' : '\'';
  std::string out(1, mark);
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    if (c.value == mark || c.value == '\\') {
      out += '\\';
      out += static_cast<char>(c.value);
    } else if (c.value == '\n') {
      out += "\\n";
    } else if (c.value == '\r') {
      out += "\\r";
    } else if (c.value == '\t') {
      out += "\\t";
    } else if (is_printable(c.value)) {
      out += text.substr(at, c.next - at);
    } else if (c.value < 0x100) {
      out += fmt::format("\\x{:02x}", c.value);
    } else if (c.value < 0x10000) {
      out += fmt::format("\\u{:04x}", c.value);
    } else {
      out += fmt::format("\\U{:08x}", c.value);
    }
    at = c.next;
  }
  out += mark;
  return out;
}

} // namespace optiq::text::jinja
