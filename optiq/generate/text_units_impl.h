#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace optiq::generate {

/** Bytes of text, of which those of special tokens are marked. */
using Unit = char16_t;
using Units = std::u16string;
inline constexpr Unit kSpecial = 0x100;

inline void append_units(Units& units, std::string_view bytes, Unit mark) {
  for (const char byte : bytes) {
    units.push_back(static_cast<Unit>(static_cast<unsigned char>(byte) | mark));
  }
}

/** The bytes of the units, those of special tokens left out. */
inline void append_text(std::string& text, std::u16string_view units) {
  for (const Unit unit : units) {
    if ((unit & kSpecial) == 0) {
      text.push_back(static_cast<char>(unit));
    }
  }
}

/** Finds a pattern in a stream (Knuth, Morris and Pratt). */
class PatternMatcher {
 public:
  /** Of at least one unit. Unless `sees_special`, a unit of a special token
   * equals that of text. */
  PatternMatcher(Units pattern, bool sees_special)
      : pattern_(std::move(pattern)),
        mask_(static_cast<Unit>(sees_special ? 0x1FF : 0xFF)),
        border_(pattern_.size()) {
    for (std::size_t i = 1; i < pattern_.size(); ++i) {
      border_[i] = extend(border_[i - 1], pattern_[i]);
    }
  }

  std::size_t size() const {
    return pattern_.size();
  }
  /** Whether the pattern ends with this unit. Not after it has, before
   * `reset`. */
  bool push(Unit unit) {
    matched_ = extend(matched_, unit);
    return matched_ == pattern_.size();
  }
  /** How many of the last units begin the pattern. */
  std::size_t matched() const {
    return matched_;
  }
  void reset() {
    matched_ = 0;
  }

 private:
  /** The most units that begin the pattern, with this one behind so many. */
  std::size_t extend(std::size_t n, Unit unit) const {
    const auto fits = [&] { return ((pattern_[n] ^ unit) & mask_) == 0; };
    while (n > 0 && !fits()) {
      n = border_[n - 1];
    }
    return fits() ? n + 1 : 0;
  }

  Units pattern_;
  Unit mask_;
  /** Of each beginning, the longest shorter one that it ends with. */
  std::vector<std::size_t> border_;
  std::size_t matched_ = 0;
};

} // namespace optiq::generate
