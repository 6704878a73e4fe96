#pragma once

#include "optiq/io/gguf_vocabulary_impl.h"

/** Which tokens of a GGUF file start and end a text. */
namespace optiq::io {

/** The id at a key such as "bos_token_id"; checked to be a token. */
std::optional<std::size_t> token_id(
    const GgufFile& file,
    const char* key,
    const GgufVocabulary& vocabulary);

/** The post_processor of a tokenizer.json that puts BOS and EOS around a text
 * as the file asks for; `default_bos` counts without add_bos_token, `otherwise`
 * is returned when there is nothing to put. */
artifacts::Json special_token_frame(
    const GgufFile& file,
    const GgufVocabulary& vocabulary,
    bool default_bos,
    artifacts::Json otherwise);

} // namespace optiq::io
