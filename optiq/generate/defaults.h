#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "optiq/io/model_directory.h"
#include "optiq/text/chat_template.h"
#include "optiq/text/tokenizer.h"

namespace optiq::generate {

/** The model's tokenizer.json, with the special tokens that the files beside it
 * name (text/special_tokens.h), else its tokenizer.model. Throws NotFound,
 * Corrupt, Unsupported. */
std::shared_ptr<const text::Tokenizer> load_tokenizer(
    const io::ModelDirectory& directory);

/** The model's chat template. Throws NotFound when it has none. */
text::ChatTemplate load_chat_template(const io::ModelDirectory& directory);

/** What a user asks. */
struct Prompt {
  std::string text;
  std::optional<std::string> system; // the message before it
  bool raw = false; // the text as it is, without the model's chat template
};

/** The tokens after which the answer begins. Throws NotFound for a model
 * without a chat template, InvalidInput for a raw prompt with a system message.
 */
std::vector<std::int32_t> encode_prompt(
    const io::ModelDirectory& directory,
    const text::Tokenizer& tokenizer,
    const Prompt& prompt);

/** The tokenizer's own eos token, with which texts end; nothing where
 * tokenizer_config.json names none. */
std::optional<std::int32_t> end_of_text(
    const io::ModelDirectory& directory,
    const text::Tokenizer& tokenizer);

/**
 * Ids that end a completion, ascending: eos_token_id of generation_config.json,
 * that of config.json, and the tokenizer's own eos token. Where the first names
 * any, those of config.json must be special tokens: it is often left over from
 * the model that this one was made from. Ids without a row of the embeddings
 * are left out.
 */
std::vector<std::int32_t> stop_ids(
    const io::ModelDirectory& directory,
    const text::Tokenizer& tokenizer);

} // namespace optiq::generate
