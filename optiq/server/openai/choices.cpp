#include "optiq/server/openai/choices.h"

#include <algorithm>
#include <random>
#include <utility>

#include <fmt/format.h>

#include "optiq/server/request_error.h"

namespace optiq::server::openai {
namespace {

std::uint64_t random_seed() {
  std::random_device device;
  return std::uint64_t{device()} << 32 | device();
}

generate::SamplerOptions choose_sampler(
    const SamplingFields& fields,
    generate::SamplerOptions sampler) {
  generate::override_sampler(fields, sampler);
  sampler.seed =
      fields.seed ? static_cast<std::uint64_t>(*fields.seed) : random_seed();
  return sampler;
}

void check_id(std::int32_t id, int vocab_size, const std::string& param) {
  if (id >= vocab_size) {
    refuse_field(
        param,
        "invalid_value",
        fmt::format(
            "[{}] found the id {}, expected one below {}, the size of the "
            "vocabulary",
            param,
            id,
            vocab_size));
  }
}

generate::LogitsOptions choose_logits(
    const SamplingFields& fields,
    generate::LogitsOptions logits,
    int vocab_size) {
  for (const auto& [id, bias] : fields.logit_bias) {
    check_id(id, vocab_size, "logit_bias");
  }
  logits.logit_bias = fields.logit_bias;
  generate::override_logits(fields, logits);
  return logits;
}

/** The length of an answer that the request leaves open. */
int default_max_tokens(const ServedModel& model, std::size_t n_prompt) {
  const bool is_models_choice =
      model.defaults.max_new_tokens || model.defaults.max_length;
  return is_models_choice
      ? std::min(model.max_tokens, model.defaults.default_max_tokens(n_prompt))
      : model.max_tokens;
}

std::vector<cache::LayerFormat> choose_layout(
    KvLayouts& layouts,
    const artifacts::KvCodec& codec) {
  try {
    return layouts.layout(codec);
  } catch (const Error& error) {
    refuse_field("kv_cache", "invalid_value", error.what());
  }
}

generate::Request make_request(
    const ServedModel& model,
    const AnswerFields& fields,
    const ChoiceOptions& options) {
  const int vocab_size = model.setup.model->info().vocab_size;
  const auto max_tokens = fields.max_completion_tokens
      ? fields.max_completion_tokens
      : fields.max_tokens;
  return {
      .max_tokens = max_tokens.value_or(0),
      .clamp_max_tokens = !max_tokens,
      .logits =
          choose_logits(fields.sampling, model.defaults.logits, vocab_size),
      .sampler = choose_sampler(fields.sampling, model.defaults.sampler),
      .stop_ids = model.stop_ids,
      .top_logprobs = options.top_logprobs,
      .prefix_key = options.tenant,
      .adapter = options.adapter};
}

/** Which field the client can change where prompt and answer are too long. */
std::string length_field(
    const AnswerFields& fields,
    const ChoiceOptions& options) {
  if (fields.max_completion_tokens) {
    return "max_completion_tokens";
  }
  return fields.max_tokens ? "max_tokens" : options.prompt_field;
}

generate::AnswerText make_text(
    const ServedModel& model,
    const AnswerFields& fields,
    const ChoiceOptions& options,
    bool starts_in_reasoning) {
  generate::AnswerTextOptions text{
      .stop_strings = model.defaults.stop_strings,
      .reasoning = options.reasoning,
      .starts_in_reasoning = starts_in_reasoning};
  text.stop_strings.insert(
      text.stop_strings.end(), fields.stop.begin(), fields.stop.end());
  return {model.tokenizer, std::move(text)};
}

} // namespace

std::vector<Choice> make_choices(
    const ServedModel& model,
    KvLayouts& layouts,
    const AnswerFields& fields,
    const std::vector<EncodedPrompt>& prompts,
    const ChoiceOptions& options) {
  generate::Request shared = make_request(model, fields, options);
  if (fields.kv_cache) {
    shared.layout = choose_layout(layouts, *fields.kv_cache);
  }
  const std::uint64_t seed = shared.sampler.seed;
  std::vector<Choice> choices;
  for (const EncodedPrompt& prompt : prompts) {
    if (prompt.ids.empty()) {
      refuse_field(
          options.prompt_field,
          "invalid_value",
          fmt::format(
              "[{}] found a prompt without tokens, expected at least one",
              options.prompt_field));
    }
    for (const std::int32_t id : prompt.ids) {
      check_id(id, model.setup.model->info().vocab_size, options.prompt_field);
    }
    for (int i = 0; i < fields.n; ++i) {
      Choice choice{
          .request = shared,
          .text = make_text(model, fields, options, prompt.starts_in_reasoning),
          .counts_prompt = i == 0,
          .length_field = length_field(fields, options)};
      choice.request.prompt = prompt.ids;
      choice.request.sampler.seed = seed + choices.size();
      if (shared.clamp_max_tokens) {
        choice.request.max_tokens =
            default_max_tokens(model, prompt.ids.size());
      }
      choices.push_back(std::move(choice));
    }
  }
  return choices;
}

} // namespace optiq::server::openai
