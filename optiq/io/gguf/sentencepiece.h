#pragma once

#include <string>

#include "optiq/artifacts/json.h"
#include "optiq/io/gguf/file.h"

namespace optiq::io {

/** Whether the tokenizer is of the model "t5": SentencePiece's Unigram with its
 * normalizer, which no tokenizer.json says in full. */
bool has_sentencepiece_model(const GgufFile& file);

/** The `tokenizer.model` that such metadata were made from, without what only
 * trainers need. Throws Corrupt. */
std::string gguf_sentencepiece_model(const GgufFile& file);

/** What tokenizer_config.json says beside it: `add_bos_token` and
 * `add_eos_token`. */
artifacts::Json gguf_sentencepiece_config(const GgufFile& file);

} // namespace optiq::io
