#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "optiq/artifacts/json.h"
#include "optiq/text/side_files.h"

namespace optiq::text {

/**
 * What the files beside tokenizer.json say of special tokens, read as
 * transformers 5 does (PreTrainedTokenizerBase._from_pretrained):
 *
 *   tokenizer_config.json     bos_token, eos_token and the like as text or as
 * an object with "content"; other keys that end in
 *                             "_token"; extra_special_tokens (list, or object
 *                             of names), formerly additional_special_tokens;
 *                             tokenizer_class, which has tokens of its own;
 *                             added_tokens_decoder {"<id>": {"content", ...}}
 *   special_tokens_map.json   the same keys, which replace those above (null
 *                             takes a token away); only without
 *                             added_tokens_decoder, as the file that follows
 *   added_tokens.json         {"<token>": <id>}
 */
class SpecialTokens {
 public:
  SpecialTokens() = default;
  /** `where` names the directory in errors. Throws Corrupt for a file that is
   * no JSON object and for a token that is neither text nor an object. */
  static SpecialTokens read(
      const SideFiles& files,
      const std::filesystem::path& where);

  /** Text by role, "bos_token" and the like: what a chat template sees. */
  const artifacts::Json& by_role() const {
    return by_role_;
  }
  /** Text of one role, or nothing. */
  std::optional<std::string> text_of(const char* role) const;

  /** Puts these tokens over the `added_tokens` of a tokenizer.json, as
   * huggingface/tokenizers' add_tokens does: what is a token already keeps its
   * id and gets these flags, what is none is numbered after the last one.
   * `find` gives the id of a token of the model's vocabulary. */
  void add_to(
      artifacts::Json& added_tokens,
      std::size_t vocabulary_size,
      const std::function<std::optional<std::uint32_t>(std::string_view)>& find)
      const;

 private:
  artifacts::Json by_role_ = artifacts::Json::object();
  // Tokens as in `added_tokens` of a tokenizer.json; only those listed have
  // an id, which is the order they are added in.
  artifacts::Json listed_ = artifacts::Json::array();
  bool listed_yield_ = false; // to a token that tokenizer.json has at their id
  artifacts::Json named_ = artifacts::Json::array();
};

} // namespace optiq::text
