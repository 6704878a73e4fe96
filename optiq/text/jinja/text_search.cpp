// Searching, cutting and quoting text.
#include <algorithm>

#include <fmt/format.h>

#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

bool is_line_end(std::int32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 ||
      c == 0x2028 || c == 0x2029;
}

// The code points of a set, sorted.
std::vector<std::int32_t> code_points_of(std::string_view text) {
  std::vector<std::int32_t> points;
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    points.push_back(c.value);
    at = c.next;
  }
  std::sort(points.begin(), points.end());
  return points;
}

} // namespace

std::string_view
strip(std::string_view text, Side side, const std::string_view* chars) {
  const std::vector<std::int32_t> set =
      chars == nullptr ? std::vector<std::int32_t>{} : code_points_of(*chars);
  const auto drops = [&](std::int32_t c) {
    return chars == nullptr ? is_space(c)
                            : std::binary_search(set.begin(), set.end(), c);
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
    const std::size_t at = code_point_before(text, end);
    if (!drops(code_point_at(text, at).value)) {
      break;
    }
    end = at;
  }
  return text.substr(begin, end - begin);
}

Finder::Finder(std::string_view what, bool from_right)
    : what_(what), from_right_(from_right) {
  // Shorter ones are found faster by comparing at each place.
  constexpr std::size_t kLong = 16;
  if (what.size() < kLong) {
    return;
  }
  border_.resize(what.size());
  const auto at = [&](std::size_t i) {
    return what[from_right ? what.size() - 1 - i : i];
  };
  for (std::size_t i = 1, k = 0; i < what.size(); ++i) {
    while (k > 0 && at(i) != at(k)) {
      k = border_[k - 1];
    }
    k += at(i) == at(k) ? 1 : 0;
    border_[i] = static_cast<std::uint32_t>(k);
  }
}

std::size_t Finder::find(std::string_view text) const {
  if (border_.empty()) {
    return from_right_ ? text.rfind(what_) : text.find(what_);
  }
  const std::size_t n = what_.size();
  std::size_t k = 0; // characters of `what` that match up to here
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[from_right_ ? text.size() - 1 - i : i];
    while (k > 0 && c != what_[from_right_ ? n - 1 - k : k]) {
      k = border_[k - 1];
    }
    k += c == what_[from_right_ ? n - 1 - k : k] ? 1 : 0;
    if (k == n) {
      return from_right_ ? text.size() - 1 - i : i + 1 - n;
    }
  }
  return std::string_view::npos;
}

void split_space(
    std::string_view text,
    std::int64_t max_splits,
    bool from_right,
    const OnPart& on_part) {
  const Side near_side = from_right ? Side::Right : Side::Left;
  std::string_view rest = strip(text, near_side);
  for (std::int64_t n = 0; !rest.empty(); ++n) {
    if (n == max_splits) {
      on_part(rest); // with the spaces at its far side
      return;
    }
    std::size_t at = from_right ? rest.size() : 0;
    while (from_right ? at > 0 : at < rest.size()) {
      const std::size_t begin = from_right ? code_point_before(rest, at) : at;
      const CodePoint c = code_point_at(rest, begin);
      if (is_space(c.value)) {
        break;
      }
      at = from_right ? begin : c.next;
    }
    on_part(from_right ? rest.substr(at) : rest.substr(0, at));
    rest = strip(from_right ? rest.substr(0, at) : rest.substr(at), near_side);
  }
}

void split(
    std::string_view text,
    std::string_view separator,
    std::int64_t max_splits,
    bool from_right,
    const OnPart& on_part) {
  const Finder finder(separator, from_right);
  for (std::int64_t n = 0; n != max_splits; ++n) {
    const std::size_t at = finder.find(text);
    if (at == std::string_view::npos) {
      break;
    }
    const std::string_view before = text.substr(0, at);
    const std::string_view after = text.substr(at + separator.size());
    on_part(from_right ? after : before);
    text = from_right ? before : after;
  }
  on_part(text);
}

void split_lines(std::string_view text, bool keep_ends, const OnPart& on_part) {
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    std::size_t next = c.next;
    if (is_line_end(c.value)) {
      if (c.value == '\r' && next < text.size() && text[next] == '\n') {
        ++next;
      }
      on_part(text.substr(begin, (keep_ends ? next : at) - begin));
      begin = next;
    }
    at = next;
  }
  if (begin < text.size()) {
    on_part(text.substr(begin));
  }
}

void write_replaced(
    Text& out,
    std::string_view text,
    std::string_view old_text,
    std::string_view new_text,
    std::int64_t max_count) {
  std::size_t at = 0;
  if (old_text.empty()) { // between all characters, and at both ends
    for (std::int64_t n = 0; n != max_count; ++n) {
      out.append(new_text);
      if (at == text.size()) {
        break;
      }
      const std::size_t next = code_point_at(text, at).next;
      out.append(text.substr(at, next - at));
      at = next;
    }
    out.append(text.substr(at));
    return;
  }
  const Finder finder(old_text, false);
  for (std::int64_t n = 0; n != max_count; ++n) {
    const std::size_t found = finder.find(text);
    if (found == std::string_view::npos) {
      break;
    }
    out.append(text.substr(0, found));
    out.append(new_text);
    text = text.substr(found + old_text.size());
  }
  out.append(text);
}

void write_escaped(Text& out, std::string_view text) {
  for (const char c : text) {
    switch (c) {
      case '&':
        out.append("&amp;");
        break;
      case '<':
        out.append("&lt;");
        break;
      case '>':
        out.append("&gt;");
        break;
      case '"':
        out.append("&#34;");
        break;
      case '\'':
        out.append("&#39;");
        break;
      default:
        out.append(c);
    }
  }
}

void write_quoted(Text& out, std::string_view text, bool ascii) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const bool has_double = text.find('"') != std::string_view::npos;
  const char mark = has_single && !has_double ? '"' : '\'';
  out.append(mark);
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    if (c.value == mark || c.value == '\\') {
      out.append('\\');
      out.append(static_cast<char>(c.value));
    } else if (c.value == '\n') {
      out.append("\\n");
    } else if (c.value == '\r') {
      out.append("\\r");
    } else if (c.value == '\t') {
      out.append("\\t");
    } else if (is_printable(c.value) && (!ascii || c.value < 0x80)) {
      out.append(text.substr(at, c.next - at));
    } else if (c.value < 0x100) {
      out.append(fmt::format("\\x{:02x}", c.value));
    } else if (c.value < 0x10000) {
      out.append(fmt::format("\\u{:04x}", c.value));
    } else {
      out.append(fmt::format("\\U{:08x}", c.value));
    }
    at = c.next;
  }
  out.append(mark);
}

std::string shortened(std::string_view text) {
  constexpr std::size_t kMost = 200;
  if (text.size() <= kMost) {
    return std::string(text);
  }
  std::size_t end = kMost;
  while (end > 0 && (text[end] & 0xC0) == 0x80) {
    --end;
  }
  return std::string(text.substr(0, end)) + " ...";
}

std::string quote(std::string_view text) {
  Text out(nullptr);
  write_quoted(out, shortened(text));
  return out.str();
}

} // namespace optiq::text::jinja
