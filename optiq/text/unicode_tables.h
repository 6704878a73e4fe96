#pragma once

#include <cstdint>
#include <span>

namespace optiq::text {

/** First and last code point of a run. */
struct CodePointRange {
  std::uint32_t first;
  std::uint32_t last;
};

/**
 * Character classes as huggingface/tokenizers 0.23.3 has them: Unicode 16.0
 * for letter, number, mark, space. The sets that follow another version there
 * are kept as what differs. Generated: tools/generate_unicode_tables.py.
 */
struct UnicodeTables {
  std::span<const CodePointRange> letter; // \p{L}
  std::span<const CodePointRange> number; // \p{N}
  std::span<const CodePointRange> mark; // \p{M}
  std::span<const CodePointRange> space; // White_Space
  // Of exactly one of: number; what the pre-tokenizer Digits splits at.
  std::span<const CodePointRange> numeric_differs;
  // Of exactly one of: letter, number or mark; \w around single_word tokens.
  std::span<const CodePointRange> word_differs;
  std::span<const CodePointRange> nfc_mark; // combining class not 0
  // NFC may change it, alone or after its predecessor.
  std::span<const CodePointRange> nfc_unstable;
  // In a decomposition or a mark since Unicode 10.0: NFC leaves it alone.
  std::span<const CodePointRange> nfc_young;
};

UnicodeTables unicode_tables();

} // namespace optiq::text
