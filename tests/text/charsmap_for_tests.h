#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace optiq::text {

/** A double array by hand: units of 32 bits. */
class CharsMapArray {
 public:
  explicit CharsMapArray(std::size_t n) : units_(n, 0xFFu) {}
  /** The children of what lies at `at` are at `base` ^ label. */
  void set(std::size_t at, char label, std::uint32_t base, bool ends) {
    units_[at] = static_cast<unsigned char>(label) | (ends ? 1u << 8 : 0) |
        ((static_cast<std::uint32_t>(at) ^ base) << 10);
  }
  void set_value(std::size_t at, std::uint32_t value) {
    units_[at] = value | 1u << 31;
  }
  std::string bytes(std::string_view texts) const {
    std::string out = number(static_cast<std::uint32_t>(4 * units_.size()));
    for (const std::uint32_t unit : units_) {
      out += number(unit);
    }
    return out.append(texts);
  }

 private:
  static std::string number(std::uint32_t value) {
    std::string out;
    for (int shift = 0; shift < 32; shift += 8) {
      out += static_cast<char>(value >> shift & 0xFF);
    }
    return out;
  }
  std::vector<std::uint32_t> units_;
};

inline constexpr std::string_view kTwoRulesTexts{"\0X\0long\0", 8};

/** "a" becomes "X", "ab" becomes "long". */
inline CharsMapArray two_rules() {
  CharsMapArray array(512);
  array.set(0, '\0', 256, false);
  array.set(256 ^ 'a', 'a', 128, true);
  array.set_value(128, 1);
  array.set(128 ^ 'b', 'b', 300, true);
  array.set_value(300, 3);
  return array;
}

} // namespace optiq::text
