#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace optiq::text {

/** First and last code point of a run. */
struct CodePointRange {
  std::uint32_t first;
  std::uint32_t last;
};

/** Characters that are equal in any case: c and c + distance, for every
 * `step`-th c from first to last. A group of three is there as all its pairs.
 */
struct CaseRun {
  std::uint32_t first;
  std::uint32_t last;
  std::uint32_t step;
  std::int32_t distance;
};

/** A character that is equal to a text of two or three in any case. */
struct LongFold {
  std::u32string_view text; // folded
  std::uint32_t code_point;
};

struct ScriptName {
  std::string_view name;
  std::string_view code; // of four letters
};

/** A property that is not made of categories. */
struct UnicodeProperty {
  std::string_view name;
  std::span<const CodePointRange> ranges;
};

/** Names of the general categories, in the order of their numbers. */
inline constexpr std::string_view kCategoryNames[] = {
    "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl",
    "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc",
    "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Cn"};

/** A run of code points that the pre-tokenizer UnicodeScripts, whose data are
 * older, gives another script. */
struct ScriptRange {
  std::uint32_t first;
  std::uint32_t last;
  std::uint32_t script;
};

/** Where a run of code points of one category begins: code point << 8 |
 * number of the category. Unicode 16.0, as all that follows. */
std::span<const std::uint32_t> unicode_categories();
/** The same of scripts; the number behind the last name is no script. */
std::span<const std::uint32_t> unicode_scripts();
std::span<const ScriptName> unicode_script_names();
/** Sorted; Han is also the script of what is written in Hiragana and Katakana
 * there, and the blank has none. */
std::span<const ScriptRange> unicode_cutting_scripts();
std::span<const CaseRun> unicode_case_runs();
/** To the lower case, of the characters that have one of one character; sorted
 * by `first`. */
std::span<const CaseRun> unicode_lower_runs();
std::span<const LongFold> unicode_long_folds();
std::span<const UnicodeProperty> unicode_properties();

/**
 * Classes in huggingface/tokenizers 0.23.3 that follow another version of
 * Unicode than 16.0, as what differs; what NFC, of Unicode 9.0 there, may
 * change. All tables are generated: tools/generate_unicode_tables.py.
 */
struct UnicodeTables {
  // Of exactly one of: number; what the pre-tokenizer Digits splits at.
  std::span<const CodePointRange> numeric_differs;
  // Of exactly one of: letter, number or mark; \w around single_word tokens.
  std::span<const CodePointRange> word_differs;
  // Of exactly one of: category P; what the pre-tokenizer Punctuation means.
  std::span<const CodePointRange> punctuation_differs;
  // Of exactly one of: category C but Cn; what BertNormalizer's clean_text
  // removes.
  std::span<const CodePointRange> bert_control_differs;
  // Of exactly one of: category Mn; what its strip_accents removes after NFD.
  std::span<const CodePointRange> bert_accent_differs;
  // Of exactly one of: mark; what the normalizer StripAccents removes.
  std::span<const CodePointRange> accent_differs;
  std::span<const CodePointRange> nfc_mark; // combining class not 0
  // NFC may change it, alone or after its predecessor.
  std::span<const CodePointRange> nfc_unstable;
  // In a decomposition or a mark since Unicode 10.0: NFC leaves it alone.
  std::span<const CodePointRange> nfc_young;
  // The same of the compatible decompositions, beside nfc_young.
  std::span<const CodePointRange> compatibility_young;
};

UnicodeTables unicode_tables();

} // namespace optiq::text
