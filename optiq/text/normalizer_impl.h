#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "optiq/text/chain_limits_impl.h"
#include "optiq/text/charsmap_impl.h"
#include "optiq/text/json_fields_impl.h"

namespace optiq::text {

/** `text` in normalization form C, as Unicode 9.0 has it. */
std::string normalize_nfc(std::string_view text);

/** `text` with every occurrence of `pattern` (not empty) replaced. */
std::string replace_all(
    std::string_view text,
    std::string_view pattern,
    std::string_view content);

/** The `normalizer` of a tokenizer.json: NFC, Replace, Prepend,
 * Precompiled, Sequence. */
class Normalizer {
 public:
  /** Of a field that may be null. Throws Corrupt or Unsupported. */
  static Normalizer parse(const JsonField& field);

  std::string apply(std::string_view text) const;
  bool is_identity() const {
    return steps_.empty();
  }

 private:
  struct Step {
    enum class Kind { Nfc, Replace, Prepend, Precompiled } kind;
    std::string pattern = {};
    std::string content = {};
    std::shared_ptr<const CharsMap> charsmap = {}; // of Precompiled
  };
  void add(const JsonField& field, ChainLimits& limits);
  std::vector<Step> steps_;
};

} // namespace optiq::text
