#pragma once

#include <optional>
#include <string>

#include "optiq/server/openai/answer_fields.h"

namespace optiq::server::openai {

/** The messages that a chat template turns into a prompt. */
struct Conversation {
  artifacts::Json messages; // checked, as the client sent them
  bool add_generation_prompt = true;
  artifacts::Json template_variables = artifacts::Json::object();
  std::optional<std::string> reasoning_effort;
};

/** POST /v1/chat/completions. */
struct ChatRequest {
  Conversation conversation;
  bool logprobs = false;
  std::optional<int> top_logprobs;
  AnswerFields answer;
};

const Fields<ChatRequest>& chat_fields();
/** Reads a body. Throws RequestErrors. */
ChatRequest read_chat_request(const artifacts::Json& body);

const Fields<Conversation>& conversation_fields();

} // namespace optiq::server::openai
