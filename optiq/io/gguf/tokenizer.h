#pragma once

#include <string>

#include "optiq/artifacts/json.h"
#include "optiq/io/gguf/file.h"

/** The tokenizer of a GGUF file as the files of a Hugging Face directory. */
namespace optiq::io {

/** tokenizer.json. Throws Unsupported for a tokenizer.ggml.model or
 * tokenizer.ggml.pre that is not known, Corrupt for contradictions. */
std::string gguf_tokenizer_json(const GgufFile& file);

/** tokenizer_config.json: special tokens and the chat template. */
artifacts::Json gguf_tokenizer_config(const GgufFile& file);

/** generation_config.json: the tokens that end an answer, and those that never
 * are part of one. */
artifacts::Json gguf_generation_config(const GgufFile& file);

} // namespace optiq::io
