#pragma once

#include <cstddef>
#include <span>

#include "optiq/artifacts/json.h"
#include "optiq/generate/request.h"
#include "optiq/text/tokenizer.h"

namespace optiq::server::openai {

/** Logprobs of chat completions: {"content": [{"token", "logprob", "bytes",
 * "top_logprobs": [{"token", "logprob", "bytes"}]}], "refusal": null}. */
artifacts::Json chat_logprobs(
    std::span<const generate::AnswerToken> tokens,
    const text::Tokenizer& tokenizer);

/** Those of completions: {"tokens", "token_logprobs", "top_logprobs",
 * "text_offset"}. `offset`, in characters, is where the first token's text
 * begins, and then where the next one's will. */
artifacts::Json text_logprobs(
    std::span<const generate::AnswerToken> tokens,
    const text::Tokenizer& tokenizer,
    std::size_t& offset);

/** Characters of a UTF-8 text. */
std::size_t count_characters(std::string_view text);

} // namespace optiq::server::openai
