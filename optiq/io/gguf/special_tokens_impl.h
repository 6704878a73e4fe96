#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "optiq/artifacts/json.h"
#include "optiq/io/gguf/file.h"

/** Which tokens of a GGUF file start, end and fill a text. */
namespace optiq::io {

/** Ids by llama.cpp's rule (src/llama-vocab.cpp): a key whose value is no id of
 * the vocabulary (-1 stands for "none") is as if it were absent, and absent
 * keys have the defaults of the tokenizer's model. */
struct GgufSpecialTokens {
  std::optional<std::uint32_t> bos;
  std::optional<std::uint32_t> eos;
  std::optional<std::uint32_t> unk;
  std::optional<std::uint32_t> pad;
  /** What ends an answer, ascending: eos, eot and eom, tokens that separate
   * files and repositories, and tokens of the known spellings. */
  std::vector<std::uint32_t> ends;
  /** What never is part of an answer. */
  std::vector<std::uint32_t> suppressed;
};

/** Nothing for a file without a vocabulary. Throws Corrupt. */
GgufSpecialTokens read_special_tokens(const GgufFile& file);

/** bos_token_id, eos_token_id and pad_token_id, those that there are. */
void add_token_ids(const GgufFile& file, artifacts::Json& config);

/** Whether tokens of this spelling are control tokens, whatever their type. */
bool is_control_spelling(std::string_view spelling);

/** The post_processor of a tokenizer.json that puts BOS and EOS around a text
 * as the file asks for; `default_bos` counts without add_bos_token, `otherwise`
 * is returned when there is nothing to put. */
artifacts::Json special_token_frame(
    const GgufFile& file,
    bool default_bos,
    artifacts::Json otherwise);

} // namespace optiq::io
