#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "optiq/artifacts/json.h"
#include "optiq/text/vocabulary_impl.h"

namespace optiq::text {

enum class VocabularyForm {
  None,
  Ids, // an object: ids by token
  Scores, // an array: tokens and scores, in the order of the ids
};

/**
 * A tokenizer.json, read in one pass. The two large parts, hundreds of
 * thousands of entries each, do not become JSON values.
 *
 *   { "added_tokens": [...], "normalizer": {...}, "pre_tokenizer": {...},
 *     "post_processor": {...}, "decoder": {...},
 *     "model": { "vocab": { "<token>": <id>, ... }
 *                       | [ ["<token>", <score>], ... ],
 *                "merges": [ "<left> <right>" | ["<left>", "<right>"], ... ],
 *                ... } }
 */
struct TokenizerJson {
  artifacts::Json document; // without model.vocab and model.merges
  VocabularyForm vocabulary_form = VocabularyForm::None;
  Vocabulary vocabulary; // indexed
  std::vector<double> scores; // by id; of the form Scores
  bool has_merges = false; // model.merges is an array
  std::vector<std::pair<std::string, std::string>> merges;
};

/** Throws Corrupt, naming `where` and the position or field. */
TokenizerJson read_tokenizer_json(
    std::string_view text,
    const std::string& where);

} // namespace optiq::text
