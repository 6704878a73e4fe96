#include "optiq/server/openai/chat_request.h"

#include "optiq/server/openai/messages.h"
#include "optiq/server/request_error.h"

namespace optiq::server::openai {
namespace {

using artifacts::Json;

constexpr const char* kWhere = "/v1/chat/completions";
constexpr int kMaxTopLogprobs = 20;
constexpr std::size_t kMaxVariables = 64;

/** What OpenAI defines and what is not implemented: values that ask for nothing
 * are taken. */
std::vector<Member> unsupported_members() {
  return {
      {"tools", unsupported_but({Json::array()}), ""},
      {"tool_choice", unsupported_but({"none", "auto"}), ""},
      {"functions", unsupported_but({Json::array()}), ""},
      {"function_call", unsupported_but({"none", "auto"}), ""},
      {"parallel_tool_calls", boolean(), "No effect: there are no tools."},
      {"response_format", unsupported_but({Json{{"type", "text"}}}), ""},
      {"modalities", unsupported_but({Json::array({"text"})}), ""},
      {"audio", unsupported_but({}), ""},
      {"verbosity", unsupported_but({"medium"}), ""},
      {"web_search_options", unsupported_but({}), ""},
      {"thinking_budget", unsupported_but({}), ""},
      {"guided_json", unsupported_but({}), ""},
      {"guided_regex", unsupported_but({}), ""},
      {"guided_choice", unsupported_but({}), ""},
      {"guided_grammar", unsupported_but({}), ""}};
}

Fields<ChatRequest> make_chat_fields() {
  using R = ChatRequest;
  Fields<R> fields;
  add_fields(fields, conversation_fields(), &R::conversation);
  fields.push_back(
      {{"logprobs", boolean(), "Gives the logprob of each token."},
       into(&R::logprobs)});
  fields.push_back(
      {{"top_logprobs",
        integer(0, kMaxTopLogprobs),
        "And so many of the most probable tokens beside it."},
       into(&R::top_logprobs)});
  add_fields(fields, answer_fields(), &R::answer);
  for (const auto& members : {unsupported_members(), inert_members()}) {
    for (const Member& member : members) {
      fields.push_back({member, {}});
    }
  }
  return fields;
}

} // namespace

const Fields<Conversation>& conversation_fields() {
  using C = Conversation;
  static const Fields<C> fields{
      {{"messages", messages_schema(), "The conversation so far.", true},
       into(&C::messages)},
      {{"add_generation_prompt",
        boolean(),
        "Whether the prompt ends where an answer begins; true by default."},
       into(&C::add_generation_prompt)},
      {{"chat_template_kwargs",
        map(any(), kMaxVariables),
        "Variables of the chat template, as in {\"enable_thinking\": false}."},
       into(&C::template_variables)},
      {{"reasoning_effort",
        one_of({"none", "minimal", "low", "medium", "high", "xhigh"}),
        "A variable of the chat template; \"none\" sets enable_thinking to "
        "false, too."},
       into(&C::reasoning_effort)}};
  return fields;
}

const Fields<ChatRequest>& chat_fields() {
  static const Fields<ChatRequest> fields = make_chat_fields();
  return fields;
}

ChatRequest read_chat_request(const Json& body) {
  auto request = read_fields(body, chat_fields(), kWhere);
  check_answer_fields(request.answer, kWhere);
  if (request.top_logprobs && !request.logprobs) {
    refuse_field(
        "top_logprobs",
        "invalid_value",
        "[/v1/chat/completions] top_logprobs: found it without logprobs, "
        "expected \"logprobs\": true beside it");
  }
  return request;
}

} // namespace optiq::server::openai
