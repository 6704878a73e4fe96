#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "optiq/server/openai/answer_fields.h"

namespace optiq::server::openai {

/** A text, or the ids of one. */
using Prompt = std::variant<std::string, std::vector<std::int32_t>>;

/** POST /v1/completions. */
struct CompletionRequest {
  std::vector<Prompt> prompts; // at least one
  bool echo = false;
  /** Logprobs of the tokens, and so many of the most probable beside each. */
  std::optional<int> logprobs;
  std::optional<int> best_of;
  AnswerFields answer;
};

const Fields<CompletionRequest>& completion_fields();
/** Reads a body. Throws RequestErrors. */
CompletionRequest read_completion_request(const artifacts::Json& body);

} // namespace optiq::server::openai
