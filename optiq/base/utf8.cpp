#include "optiq/base/utf8.h"

namespace optiq {

// The table of well-formed sequences, Unicode standard 3.9, table 3-7.
Utf8Step step_utf8(std::string_view bytes) {
  using Kind = Utf8Step::Kind;
  const auto byte = [&](std::size_t i) {
    return static_cast<unsigned char>(bytes[i]);
  };
  const unsigned char lead = byte(0);
  if (lead < 0x80) {
    return {Kind::Character, 1};
  }
  if (lead < 0xC2 || lead > 0xF4) {
    return {Kind::Invalid, 1};
  }
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  unsigned char low = 0x80;
  unsigned char high = 0xBF;
  if (lead == 0xE0) {
    low = 0xA0;
  } else if (lead == 0xED) {
    high = 0x9F;
  } else if (lead == 0xF0) {
    low = 0x90;
  } else if (lead == 0xF4) {
    high = 0x8F;
  }
  for (std::size_t i = 1; i < length; ++i) {
    if (i == bytes.size()) {
      return {Kind::Incomplete, i};
    }
    if (byte(i) < low || byte(i) > high) {
      return {Kind::Invalid, i};
    }
    low = 0x80;
    high = 0xBF;
  }
  return {Kind::Character, length};
}

} // namespace optiq
