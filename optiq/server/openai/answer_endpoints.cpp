#include <random>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "optiq/server/endpoints_impl.h"
#include "optiq/server/openai/answer_writer.h"
#include "optiq/server/openai/chat_request.h"
#include "optiq/server/openai/choices.h"
#include "optiq/server/openai/completion_request.h"
#include "optiq/server/openai/conversation.h"
#include "optiq/server/openai/model_choice_impl.h"
#include "optiq/server/request_body.h"
#include "optiq/server/request_error.h"

namespace optiq::server {
namespace {

using artifacts::Json;

std::string random_id() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}{:08x}", device(), device(), device());
}

openai::AnswerHeader make_header(
    const ServiceState& state,
    const std::string& model) {
  return {
      .id = random_id(),
      .model = model,
      .fingerprint = state.fingerprint,
      .created = std::chrono::duration_cast<std::chrono::seconds>(
                     std::chrono::system_clock::now().time_since_epoch())
                     .count()};
}

Json read_body(const Call& call, const Schema& schema) {
  Json body = parse_body(call.request.body, call.request.path);
  if (const auto ignored = ignored_members(body, schema); !ignored.empty()) {
    call.reply->add_header("x-optiq-ignored-fields", ignored);
  }
  return body;
}

/** More than the batch and the queue hold would never be taken. */
void check_count(const ServiceOptions& options, std::size_t n_choices) {
  const auto most =
      static_cast<std::size_t>(options.max_concurrent + options.max_waiting);
  if (n_choices > most) {
    refuse_field(
        "n",
        "invalid_value",
        fmt::format(
            "[n] found {} answers in one request, expected at most {}, as many "
            "as the server runs and lets wait",
            n_choices,
            most));
  }
}

/** One that is named twice is one. */
void count_adapters(Metrics& metrics, const openai::ModelChoice& model) {
  const std::set<std::string> ids(
      model.adapter_ids.begin(), model.adapter_ids.end());
  for (const std::string& id : ids) {
    metrics.count_adapter(id);
  }
  if (ids.empty()) {
    metrics.count_adapter("base");
  }
}

/** What becomes of a request's fields. */
struct Answer {
  openai::ModelChoice model;
  std::vector<Choice> choices;
  std::unique_ptr<openai::AnswerForm> form;
};

void start(
    ServiceState& state,
    const Call& call,
    const openai::AnswerFields& fields,
    Answer answer) {
  count_adapters(state.metrics, answer.model);
  const std::size_t n = answer.choices.size();
  auto header = make_header(state, answer.model.name);
  auto writer = fields.stream
      ? openai::make_stream_writer(
            call.reply,
            std::move(header),
            std::move(answer.form),
            n,
            fields.include_usage)
      : openai::make_whole_writer(
            call.reply, std::move(header), std::move(answer.form), n);
  start_answer(state, call, std::move(answer.choices), std::move(writer));
}

/** The prompt as ids, and as text where it is echoed. */
struct ReadPrompt {
  openai::EncodedPrompt encoded;
  std::string text;
};

ReadPrompt
read_prompt(const ServedModel& model, const openai::Prompt& prompt, bool echo) {
  if (const auto* text = std::get_if<std::string>(&prompt)) {
    return {{model.tokenizer->encode(*text, true)}, echo ? *text : ""};
  }
  const auto& ids = std::get<std::vector<std::int32_t>>(prompt);
  return {{ids}, echo ? model.tokenizer->decode(ids, true) : ""};
}

} // namespace

Schema chat_completions_body() {
  return schema_of(openai::chat_fields());
}

void chat_completions(ServiceState& state, Call& call) {
  const Json body = read_body(call, chat_completions_body());
  const auto request = openai::read_chat_request(body);
  auto model = openai::choose_model(state, request.answer);
  check_count(state.options, static_cast<std::size_t>(request.answer.n));
  const std::string text =
      openai::render_conversation(state.model, request.conversation);
  openai::ChoiceOptions options{
      .reasoning = state.reasoning,
      .tenant = call.tenant,
      .adapter = model.adapter,
      .prompt_field = "messages"};
  if (request.logprobs) {
    options.top_logprobs = request.top_logprobs.value_or(0);
  }
  openai::EncodedPrompt prompt{
      .ids = state.model.tokenizer->encode(text, false),
      .starts_in_reasoning =
          state.reasoning && text::opens_reasoning(text, *state.reasoning)};
  auto choices = openai::make_choices(
      state.model, state.layouts, request.answer, {std::move(prompt)}, options);
  start(
      state,
      call,
      request.answer,
      {std::move(model),
       std::move(choices),
       openai::make_chat_form(state.model.tokenizer, request.logprobs)});
}

Schema completions_body() {
  return schema_of(openai::completion_fields());
}

void completions(ServiceState& state, Call& call) {
  const Json body = read_body(call, completions_body());
  const auto request = openai::read_completion_request(body);
  auto model = openai::choose_model(state, request.answer);
  const auto n = static_cast<std::size_t>(request.answer.n);
  check_count(state.options, request.prompts.size() * n);
  std::vector<openai::EncodedPrompt> prompts;
  std::vector<std::string> echo; // by choice
  for (const openai::Prompt& prompt : request.prompts) {
    ReadPrompt read = read_prompt(state.model, prompt, request.echo);
    prompts.push_back(std::move(read.encoded));
    if (request.echo) {
      echo.insert(echo.end(), n, read.text);
    }
  }
  auto choices = openai::make_choices(
      state.model,
      state.layouts,
      request.answer,
      prompts,
      {.top_logprobs = request.logprobs,
       .tenant = call.tenant,
       .adapter = model.adapter,
       .prompt_field = "prompt"});
  start(
      state,
      call,
      request.answer,
      {std::move(model),
       std::move(choices),
       openai::make_text_form(
           state.model.tokenizer,
           request.logprobs.has_value(),
           std::move(echo))});
}

} // namespace optiq::server
