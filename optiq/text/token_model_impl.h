#pragma once

#include <string>
#include <variant>

#include "optiq/text/bpe_impl.h"
#include "optiq/text/json_fields_impl.h"
#include "optiq/text/sentencepiece_bpe_impl.h"
#include "optiq/text/tokenizer_json_impl.h"
#include "optiq/text/unigram_impl.h"
#include "optiq/text/vocabulary_impl.h"
#include "optiq/text/word_piece_impl.h"

namespace optiq::text {

/** What turns the words of a pre-tokenizer into ids. Each has a `Scratch` and
 * `encode(word, scratch, ids)`, which appends. */
using TokenModel = std::variant<
    BpeModel,
    UnigramModel,
    WordPieceModel,
    WordLevelModel,
    SentencePieceBpe>;

/** Whether the model takes words as bytes where ByteLevel spells them last. */
bool takes_bytes(const TokenizerJson& json, const std::string& where);

/** The `model` of a tokenizer.json. `vocabulary` is what `json` held and
 * outlives the model. `byte_level`: words are bytes. Throws Corrupt,
 * Unsupported. */
TokenModel parse_token_model(
    const TokenizerJson& json,
    const Vocabulary& vocabulary,
    bool byte_level,
    const std::string& where);

} // namespace optiq::text
