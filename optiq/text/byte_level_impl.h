#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace optiq::text {

/**
 * The spelling of bytes as printable characters that byte-level vocabularies
 * use: printable Latin-1 stands for itself, the 68 others follow from U+0100.
 */
class ByteLevelAlphabet {
 public:
  ByteLevelAlphabet();

  /** One character, UTF-8. */
  const std::string& spelling(std::uint8_t byte) const {
    return spellings_[byte];
  }
  std::string spell(std::string_view bytes) const;
  /** The bytes that `text` spells; nothing when a character spells none. */
  std::optional<std::string> bytes_of(std::string_view text) const;

 private:
  static constexpr std::size_t kCharacters = 256 + 68;
  std::array<std::string, 256> spellings_;
  std::array<std::int16_t, kCharacters> byte_of_; // -1: none
};

} // namespace optiq::text
