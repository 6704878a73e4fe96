#pragma once

#include "optiq/artifacts/json.h"
#include "optiq/io/gguf/file.h"

/** How a byte-level GGUF tokenizer cuts a text before it merges. */
namespace optiq::io {

struct GgufPreTokenizer {
  artifacts::Json normalizer; // of a tokenizer.json; null for none
  artifacts::Json pre_tokenizer;
  bool ignore_merges = false; // a whole piece that is a token is taken as it is
  bool add_bos = false; // where the file has no add_bos_token
};

/** The rule that tokenizer.ggml.pre names, as the tokenizer.json has it that
 * such files were made from. Throws Unsupported for a name without a row. */
GgufPreTokenizer read_pre_tokenizer(const GgufFile& file);

/** ByteLevel, as pre-tokenizer, post-processor or decoder. */
artifacts::Json byte_level_json(bool use_regex);

} // namespace optiq::io
