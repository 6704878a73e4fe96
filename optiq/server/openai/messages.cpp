#include "optiq/server/openai/messages.h"

#include <string>
#include <utility>

namespace optiq::server::openai {
namespace {

using artifacts::Json;

constexpr std::size_t kMaxText = 64u << 20; // bytes: as a body
constexpr std::size_t kMaxMessages = 1u << 16;
constexpr std::size_t kMaxParts = 1u << 12;
constexpr std::size_t kMaxName = 512; // bytes

std::string join_parts(const Json& content) {
  if (content.is_string()) {
    return content.get<std::string>();
  }
  std::string text;
  if (content.is_array()) {
    for (const Json& part : content) {
      text += part["text"].get_ref<const std::string&>();
    }
  }
  return text;
}

Json template_message(const Json& message) {
  const auto role = message["role"].get<std::string>();
  Json made{
      {"role", role == "developer" ? "system" : role},
      {"content", join_parts(message.value("content", Json()))}};
  for (const auto& [from, to] :
       {std::pair{"name", "name"},
        std::pair{"reasoning", "reasoning_content"},
        std::pair{"reasoning_content", "reasoning_content"}}) {
    const auto found = message.find(from);
    if (found != message.end() && !found->is_null()) {
      made[to] = *found;
    }
  }
  return made;
}

} // namespace

Schema messages_schema() {
  const Schema text = string(0, kMaxText);
  const Schema part = object(
      {{"type", unsupported_but({"text"}), "", true},
       {"text", text, "", true}});
  return list(
      object(
          {{"role",
            one_of({"system", "developer", "user", "assistant"}),
            "\"developer\" is as good as \"system\".",
            true},
           {"content",
            either({text, list(part, 1, kMaxParts)}),
            "A text, or a list of texts."},
           {"name", string(0, kMaxName), "For templates that name speakers."},
           {"reasoning_content", text, "The reasoning of an earlier turn."},
           {"reasoning", text, "The same."},
           {"tool_calls", unsupported_but({Json::array()}), ""},
           {"function_call", unsupported_but({}), ""},
           {"audio", unsupported_but({}), ""}}),
      1,
      kMaxMessages);
}

Json template_messages(const Json& messages) {
  Json made = Json::array();
  for (const Json& message : messages) {
    made.push_back(template_message(message));
  }
  return made;
}

} // namespace optiq::server::openai
