#pragma once

#include <string>
#include <string_view>

namespace optiq::text {

/** NFC, NFD (not composed), NFKC and NFKD (compatible). */
struct NormalizationForm {
  bool composed = true;
  bool compatible = false;
};

/** Valid UTF-8 in a normalization form, as Unicode 9.0 has it: that is the
 * version in huggingface/tokenizers, which leaves younger characters alone. */
std::string normalize(std::string_view text, NormalizationForm form);

/** The form NFC. */
std::string normalize_nfc(std::string_view text);

} // namespace optiq::text
