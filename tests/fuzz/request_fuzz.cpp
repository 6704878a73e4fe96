// A body of a request, given to every endpoint that reads one: what is accepted
// is in range, and becomes requests that the engine would take.
#include "fuzz/fuzz_support.h"
#include "support/served_script.h"

#include "optiq/server/openai/chat_request.h"
#include "optiq/server/openai/choices.h"
#include "optiq/server/openai/completion_request.h"
#include "optiq/server/openai/conversation.h"
#include "optiq/server/request_body.h"

namespace optiq::fuzz {
namespace {

using artifacts::Json;

struct Served {
  server::ServedModel model = testing::scripted_served();
  server::KvLayouts layouts{model.setup};
};

void check_choices(
    Served& served,
    const server::openai::AnswerFields& fields,
    const std::vector<server::openai::EncodedPrompt>& prompts) {
  const std::size_t n = prompts.size() * static_cast<std::size_t>(fields.n);
  const auto choices = server::openai::make_choices(
      served.model, served.layouts, fields, prompts, {});
  require(choices.size() == n, "n choices of each prompt");
  for (const server::Choice& choice : choices) {
    const generate::Request& request = choice.request;
    require(request.max_tokens >= 1, "an answer has room");
    generate::validate(request.sampler);
    generate::validate(request.logits);
    for (const auto& [id, bias] : request.logits.logit_bias) {
      require(id >= 0 && id < 260, "biases are of the vocabulary");
    }
  }
}

void answer_chat(Served& served, const Json& body) {
  const auto request = server::openai::read_chat_request(body);
  const std::string text =
      server::openai::render_conversation(served.model, request.conversation);
  check_choices(
      served,
      request.answer,
      {{.ids = served.model.tokenizer->encode(text, false)}});
}

void answer_text(Served& served, const Json& body) {
  const auto request = server::openai::read_completion_request(body);
  std::vector<server::openai::EncodedPrompt> prompts;
  for (const auto& prompt : request.prompts) {
    const auto* text = std::get_if<std::string>(&prompt);
    prompts.push_back(
        {.ids = text != nullptr ? served.model.tokenizer->encode(*text, true)
                                : std::get<std::vector<std::int32_t>>(prompt)});
  }
  check_choices(served, request.answer, prompts);
}

} // namespace
} // namespace optiq::fuzz

extern "C" std::size_t LLVMFuzzerCustomMutator(
    std::uint8_t* data,
    std::size_t size,
    std::size_t max_size,
    unsigned seed) {
  return optiq::fuzz::mutate_json(data, size, max_size, seed);
}

extern "C" int LLVMFuzzerTestOneInput(
    const std::uint8_t* data,
    std::size_t size) {
  using namespace optiq;
  static fuzz::Served served;
  artifacts::Json body;
  if (!fuzz::accepts([&] {
        body = server::parse_body(fuzz::as_text(data, size), "fuzz");
      })) {
    return 0;
  }
  fuzz::accepts([&] { fuzz::answer_chat(served, body); });
  fuzz::accepts([&] { fuzz::answer_text(served, body); });
  return 0;
}
