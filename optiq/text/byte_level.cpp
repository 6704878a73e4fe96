#include "optiq/text/byte_level_impl.h"
#include "optiq/text/unicode_impl.h"

namespace optiq::text {

ByteLevelAlphabet::ByteLevelAlphabet() {
  byte_of_.fill(-1);
  std::uint32_t next = 256;
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    const std::uint32_t code_point = printable ? byte : next++;
    byte_of_[code_point] = static_cast<std::int16_t>(byte);
    append_utf8(spellings_[byte], code_point);
  }
}

std::string ByteLevelAlphabet::spell(std::string_view bytes) const {
  std::string out;
  for (const char c : bytes) {
    out += spelling(static_cast<std::uint8_t>(c));
  }
  return out;
}

std::optional<std::string> ByteLevelAlphabet::bytes_of(
    std::string_view text) const {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const DecodedCharacter c = decode_character(text.data() + at);
    if (c.code_point >= kCharacters || byte_of_[c.code_point] < 0) {
      return std::nullopt;
    }
    out += static_cast<char>(byte_of_[c.code_point]);
    at += c.length;
  }
  return out;
}

} // namespace optiq::text
