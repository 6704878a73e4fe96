#include "optiq/base/printable.h"

#include <algorithm>
#include <cstdint>

#include <fmt/format.h>

#include "optiq/base/utf8.h"

namespace optiq {
namespace {

struct Range {
  std::uint32_t first;
  std::uint32_t last;
};

// Unicode's general categories Cc, Zl and Zp, and the property Bidi_Control.
constexpr Range kHarmful[] = {
    {0x00, 0x1f},
    {0x7f, 0x9f},
    {0x61c, 0x61c},
    {0x200e, 0x200f},
    {0x2028, 0x202e},
    {0x2066, 0x2069},
};

bool is_harmful(std::uint32_t code_point) {
  return std::any_of(
      std::begin(kHarmful), std::end(kHarmful), [&](const Range& range) {
        return range.first <= code_point && code_point <= range.last;
      });
}

/** The one character that these bytes are. */
std::uint32_t decode(std::string_view character) {
  const auto lead = static_cast<unsigned char>(character[0]);
  if (character.size() == 1) {
    return lead;
  }
  std::uint32_t code_point = lead & (0x7fu >> character.size());
  for (const char c : character.substr(1)) {
    code_point = code_point << 6 | (static_cast<unsigned char>(c) & 0x3fu);
  }
  return code_point;
}

std::string escaped(std::uint32_t code_point) {
  switch (code_point) {
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      return code_point < 0x80 ? fmt::format("\\x{:02x}", code_point)
                               : fmt::format("\\u{:04x}", code_point);
  }
}

/** The text with the characters for which `is_refused` holds, and the bytes
 * that are none, escaped. */
template <typename IsRefused>
std::string escape(std::string_view text, const IsRefused& is_refused) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const Utf8Step step = step_utf8(text);
    const std::string_view part = text.substr(0, step.length);
    text.remove_prefix(step.length);
    if (step.kind != Utf8Step::Kind::Character) {
      for (const char c : part) {
        result += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
      }
    } else if (const std::uint32_t c = decode(part); is_refused(c)) {
      result += escaped(c);
    } else {
      result += part;
    }
  }
  return result;
}

} // namespace

std::string printable(std::string_view text) {
  return escape(text, is_harmful);
}

std::string printable_lines(std::string_view text) {
  return escape(text, [](std::uint32_t c) {
    return is_harmful(c) && c != '\n' && c != '\t';
  });
}

std::string escape_invalid_utf8(std::string_view text) {
  return escape(text, [](std::uint32_t) { return false; });
}

} // namespace optiq
