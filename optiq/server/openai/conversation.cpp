#include "optiq/server/openai/conversation.h"

#include <fmt/format.h>

#include "optiq/server/openai/messages.h"
#include "optiq/server/request_error.h"

namespace optiq::server::openai {
namespace {

using artifacts::Json;

/** What the template sees beside the messages. */
Json template_variables(
    const text::ChatTemplate& chat_template,
    const Conversation& conversation) {
  Json variables = conversation.template_variables;
  for (const auto& [name, value] : variables.items()) {
    if (chat_template.is_own_variable(name)) {
      refuse_field(
          "chat_template_kwargs." + name,
          "invalid_value",
          fmt::format(
              "[/v1/chat/completions] chat_template_kwargs.{}: found a "
              "variable that the conversation sets, expected another name",
              name));
    }
  }
  if (const auto& effort = conversation.reasoning_effort) {
    if (!variables.contains("reasoning_effort")) {
      variables["reasoning_effort"] = *effort;
    }
    if (*effort == "none" && !variables.contains("enable_thinking")) {
      variables["enable_thinking"] = false;
    }
  }
  return variables;
}

} // namespace

std::string render_conversation(
    const ServedModel& model,
    const Conversation& conversation) {
  if (!model.chat_template) {
    refuse_field(
        "messages",
        "unsupported_parameter",
        "[/v1/chat/completions] messages: the model has no chat template. Use "
        "/v1/completions");
  }
  const Json variables = template_variables(*model.chat_template, conversation);
  try {
    return model.chat_template->render_chat(
        template_messages(conversation.messages),
        conversation.add_generation_prompt,
        nullptr,
        variables);
  } catch (const Error& error) {
    // A template fails on what the client sent, budgets included.
    refuse_field("messages", "invalid_value", error.what());
  }
}

} // namespace optiq::server::openai
