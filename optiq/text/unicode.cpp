#include <algorithm>
#include <cstring>
#include <map>
#include <span>

#include "optiq/text/unicode_impl.h"
#include "optiq/text/unicode_tables.h"

namespace optiq::text {
namespace {

constexpr std::uint32_t kCodePoints = 0x110000;
constexpr std::string_view kReplacement = "\xEF\xBF\xBD"; // U+FFFD

void flip(
    std::vector<std::uint16_t>& classes,
    std::span<const CodePointRange> ranges,
    std::uint16_t bit) {
  for (const CodePointRange& range : ranges) {
    for (std::uint32_t c = range.first; c <= range.last; ++c) {
      classes[c] ^= bit;
    }
  }
}

/** The bits that a general category gives. */
std::uint16_t bits_of_category(std::string_view name) {
  switch (name[0]) {
    case 'L':
      return kIsLetter | kIsWord;
    case 'N':
      return kIsNumber | kIsNumeric | kIsWord;
    case 'M':
      return kIsMark | kIsWord | kIsAccent | (name == "Mn" ? kIsBertAccent : 0);
    case 'P':
      return kIsPunctuation;
    case 'C':
      return name == "Cn" ? 0 : kIsBertControl;
    default:
      return 0;
  }
}

std::vector<std::uint16_t> classes_by_code_point() {
  const UnicodeTables tables = unicode_tables();
  const auto categories = unicode_categories();
  std::vector<std::uint16_t> classes(kCodePoints, 0);
  for (std::size_t i = 0; i < categories.size(); ++i) {
    const std::uint32_t end =
        i + 1 < categories.size() ? categories[i + 1] >> 8 : kCodePoints;
    std::fill(
        classes.begin() + (categories[i] >> 8),
        classes.begin() + end,
        bits_of_category(kCategoryNames[categories[i] & 0xFF]));
  }
  for (const UnicodeProperty& property : unicode_properties()) {
    if (property.name == "White_Space") {
      flip(classes, property.ranges, kIsSpace);
    }
  }
  flip(classes, tables.numeric_differs, kIsNumeric);
  flip(classes, tables.word_differs, kIsWord);
  flip(classes, tables.punctuation_differs, kIsPunctuation);
  flip(classes, tables.bert_control_differs, kIsBertControl);
  flip(classes, tables.bert_accent_differs, kIsBertAccent);
  flip(classes, tables.accent_differs, kIsAccent);
  flip(classes, tables.nfc_mark, kIsNfcMark);
  flip(classes, tables.nfc_unstable, kIsNfcUnstable);
  flip(classes, tables.nfc_young, kIsNfcYoung);
  flip(classes, tables.compatibility_young, kIsCompatibilityYoung);
  classes['\r'] |= kIsNewline;
  classes['\n'] |= kIsNewline;
  return classes;
}

bool all_ascii(const char* at) {
  std::uint64_t word = 0;
  std::memcpy(&word, at, sizeof(word));
  return (word & 0x8080808080808080u) == 0;
}

} // namespace

CharacterClasses::CharacterClasses() {
  const std::vector<std::uint16_t> classes = classes_by_code_point();
  std::map<std::vector<std::uint16_t>, std::uint16_t> known;
  for (std::size_t i = 0; i < block_of_.size(); ++i) {
    const auto begin = classes.begin() + static_cast<std::ptrdiff_t>(i * 256);
    const std::vector<std::uint16_t> block(begin, begin + 256);
    const auto [found, added] = known.try_emplace(
        block, static_cast<std::uint16_t>(blocks_.size() / 256));
    if (added) {
      blocks_.insert(blocks_.end(), block.begin(), block.end());
    }
    block_of_[i] = found->second;
  }
}

const CharacterClasses& CharacterClasses::instance() {
  static const CharacterClasses classes;
  return classes;
}

void append_utf8(std::string& out, std::uint32_t c) {
  const auto tail = [&](int shift) {
    out += static_cast<char>(0x80 | ((c >> shift) & 0x3F));
  };
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | (c >> 6));
    tail(0);
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | (c >> 12));
    tail(6);
    tail(0);
  } else {
    out += static_cast<char>(0xF0 | (c >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

std::size_t
append_lossy(std::string& out, std::string_view bytes, bool more_to_come) {
  std::size_t at = 0;
  while (at < bytes.size()) {
    const Utf8Step step = step_utf8(bytes.substr(at));
    if (step.kind == Utf8Step::Kind::Character) {
      out.append(bytes, at, step.length);
    } else if (step.kind == Utf8Step::Kind::Incomplete && more_to_come) {
      return at;
    } else {
      out += kReplacement;
    }
    at += step.length;
  }
  return at;
}

bool is_valid_utf8(std::string_view bytes) {
  std::size_t at = 0;
  while (at < bytes.size()) {
    if (at + 8 <= bytes.size() && all_ascii(bytes.data() + at)) {
      at += 8;
      continue;
    }
    const Utf8Step step = step_utf8(bytes.substr(at));
    if (step.kind != Utf8Step::Kind::Character) {
      return false;
    }
    at += step.length;
  }
  return true;
}

} // namespace optiq::text
