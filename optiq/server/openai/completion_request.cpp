#include "optiq/server/openai/completion_request.h"

#include <limits>

#include <fmt/format.h>

#include "optiq/server/request_error.h"

namespace optiq::server::openai {
namespace {

using artifacts::Json;

constexpr const char* kWhere = "/v1/completions";
constexpr int kMaxLogprobs = 20;
constexpr std::size_t kMaxText = 64u << 20; // bytes: as a body
constexpr std::size_t kMaxPrompts = 1024;
constexpr std::size_t kMaxIds = 1u << 19;

Schema prompt_schema() {
  const Schema text = string(0, kMaxText);
  const Schema ids =
      list(integer(0, std::numeric_limits<std::int32_t>::max()), 1, kMaxIds);
  return either(
      {text, list(text, 1, kMaxPrompts), ids, list(ids, 1, kMaxPrompts)});
}

Prompt prompt_of(const Json& value) {
  return value.is_string() ? Prompt(value.get<std::string>())
                           : Prompt(value.get<std::vector<std::int32_t>>());
}

void read_prompt(const Json& value, CompletionRequest& to) {
  if (value.is_string() || value.front().is_number()) {
    to.prompts = {prompt_of(value)};
    return;
  }
  for (const Json& item : value) {
    to.prompts.push_back(prompt_of(item));
  }
}

Fields<CompletionRequest> make_completion_fields() {
  using R = CompletionRequest;
  Fields<R> fields{
      {{"prompt",
        prompt_schema(),
        "A text or its ids, or a list of several; each has n answers.",
        true},
       read_prompt},
      {{"echo", boolean(), "Begins each answer with its prompt."},
       into(&R::echo)},
      {{"logprobs",
        integer(0, kMaxLogprobs),
        "Gives the logprob of each token, and so many of the most probable "
        "tokens beside it."},
       into(&R::logprobs)},
      {{"best_of", integer(1, kMaxChoices), "As n, if it is there."},
       into(&R::best_of)},
      {{"suffix", unsupported_but({""}), ""}, {}}};
  add_fields(fields, answer_fields(), &R::answer);
  for (const Member& member : inert_members()) {
    fields.push_back({member, {}});
  }
  return fields;
}

} // namespace

const Fields<CompletionRequest>& completion_fields() {
  static const Fields<CompletionRequest> fields = make_completion_fields();
  return fields;
}

CompletionRequest read_completion_request(const Json& body) {
  auto request = read_fields(body, completion_fields(), kWhere);
  check_answer_fields(request.answer, kWhere);
  if (request.best_of && *request.best_of != request.answer.n) {
    refuse_field(
        "best_of",
        "unsupported_parameter",
        fmt::format(
            "[{}] best_of: found {}, expected n ({}): choosing among answers "
            "is not supported yet",
            kWhere,
            *request.best_of,
            request.answer.n));
  }
  if (request.echo && request.logprobs) {
    refuse_field(
        "echo",
        "unsupported_parameter",
        fmt::format(
            "[{}] echo: found it with logprobs: those of a prompt are not "
            "supported yet. Leave one of them out",
            kWhere));
  }
  return request;
}

} // namespace optiq::server::openai
