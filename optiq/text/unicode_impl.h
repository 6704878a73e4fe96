#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "optiq/base/utf8.h"

namespace optiq::text {

/** Bits of CharacterClasses::of. */
constexpr std::uint16_t kIsLetter = 1; // \p{L}
constexpr std::uint16_t kIsNumber = 2; // \p{N}
constexpr std::uint16_t kIsMark = 4; // \p{M}
constexpr std::uint16_t kIsSpace = 8; // White_Space
constexpr std::uint16_t kIsNewline = 16; // CR, LF
constexpr std::uint16_t kIsNumeric = 32; // of the pre-tokenizer Digits
constexpr std::uint16_t kIsWord = 64; // \w around single_word added tokens
constexpr std::uint16_t kIsNfcMark = 128;
constexpr std::uint16_t kIsNfcUnstable = 256;
constexpr std::uint16_t kIsNfcYoung = 512;
constexpr std::uint16_t kIsPunctuation = 1024; // of the pre-tokenizer
constexpr std::uint16_t kIsBertControl = 2048; // BertNormalizer removes it
constexpr std::uint16_t kIsBertAccent = 4096; // and this after NFD
constexpr std::uint16_t kIsAccent = 8192; // of the normalizer StripAccents
constexpr std::uint16_t kIsCompatibilityYoung = 16384;

/** The tables of unicode_tables.h as one of two levels. */
class CharacterClasses {
 public:
  /** Built at the first call, then constant. */
  static const CharacterClasses& instance();

  std::uint16_t of(std::uint32_t code_point) const {
    return blocks_[(block_of_[code_point >> 8] << 8) | (code_point & 255)];
  }

 private:
  CharacterClasses();
  std::array<std::uint16_t, 0x1100> block_of_;
  std::vector<std::uint16_t> blocks_; // distinct blocks of 256 code points
};

struct DecodedCharacter {
  std::uint32_t code_point;
  std::uint32_t length; // bytes
};

/** First character of valid, non-empty UTF-8. */
inline DecodedCharacter decode_character(const char* at) {
  const auto* p = reinterpret_cast<const unsigned char*>(at);
  if (p[0] < 0x80) {
    return {p[0], 1};
  }
  if (p[0] < 0xE0) {
    return {((p[0] & 0x1Fu) << 6) | (p[1] & 0x3Fu), 2};
  }
  if (p[0] < 0xF0) {
    return {((p[0] & 0xFu) << 12) | ((p[1] & 0x3Fu) << 6) | (p[2] & 0x3Fu), 3};
  }
  return {
      ((p[0] & 7u) << 18) | ((p[1] & 0x3Fu) << 12) | ((p[2] & 0x3Fu) << 6) |
          (p[3] & 0x3Fu),
      4};
}

/** Start of the character that ends where `end` bytes of valid text end. */
inline std::size_t previous_character(std::string_view text, std::size_t end) {
  std::size_t at = end - 1;
  while ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) {
    --at;
  }
  return at;
}

void append_utf8(std::string& out, std::uint32_t code_point);

/** Appends bytes as text, U+FFFD for each maximal invalid part (Python's
 * errors='replace'). With `more_to_come`, an incomplete character at the end
 * is left; returns the bytes consumed. */
std::size_t
append_lossy(std::string& out, std::string_view bytes, bool more_to_come);

bool is_valid_utf8(std::string_view bytes);

} // namespace optiq::text
