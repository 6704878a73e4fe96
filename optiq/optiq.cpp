#include "optiq/optiq.h"

#include <algorithm>
#include <utility>

#include "optiq/base/system.h"
#include "optiq/eval/dataset.h"
#include "optiq/eval/kl.h"
#include "optiq/eval/perplexity.h"
#include "optiq/generate/defaults.h"
#include "optiq/generate/generation_config.h"
#include "optiq/io/hub/resolve.h"
#include "optiq/text/chat_template.h"

namespace optiq {
namespace {

/** What the model's files and the caller want, the caller first. */
generate::GenerateOptions choose_options(
    const LoadedModel& model,
    generate::GenerationConfig wanted,
    const TextOptions& options,
    std::size_t n_prompt) {
  const auto sampler = options.sampler.value_or(wanted.sampler);
  generate::validate(sampler);
  return {
      .max_tokens = options.max_tokens ? *options.max_tokens
                                       : wanted.default_max_tokens(n_prompt),
      .clamp_max_tokens = !options.max_tokens,
      .logits = std::move(wanted.logits),
      .sampler = sampler,
      .stop_ids = generate::stop_ids(model.directory, *model.tokenizer),
      .stop_strings = std::move(wanted.stop_strings),
      .tokenizer = model.tokenizer,
      .share_prefixes = false}; // the engine answers one prompt
}

/** Throws Exhausted: what a front door is given is no client's request. */
void require_cache_room(
    const models::Setup& setup,
    std::size_t n_prompt,
    const TextOptions& options) {
  const auto n_tokens = n_prompt +
      static_cast<std::size_t>(std::max(1, options.max_tokens.value_or(1)));
  const std::size_t needed = cache::sequence_bytes(
      setup.layout, n_tokens, generate::EngineOptions{}.prefill_chunk);
  if (needed > options.max_cache_bytes) {
    fail(
        ErrorKind::Exhausted,
        "[generate_text] {} tokens take {} bytes of K/V, expected at most the "
        "max_cache_bytes of {}. Shorten the prompt or raise the limit",
        n_tokens,
        needed,
        options.max_cache_bytes);
  }
}

/** The data as tokens, chats in the template of one model. */
std::vector<eval::TokenRow> encode(
    const eval::Dataset& dataset,
    const io::ModelDirectory& with_template,
    const text::Tokenizer& tokenizer,
    const MeasureOptions& options) {
  std::optional<text::ChatTemplate> chat;
  if (!dataset.rows.empty()) {
    chat = generate::load_chat_template(with_template);
  }
  return eval::encode_dataset(
      dataset,
      tokenizer,
      chat ? &*chat : nullptr,
      options.seq_len,
      options.limit);
}

} // namespace

LoadedModel load_model(const std::string& model) {
  io::HubSettings hub = io::hub_settings();
  hub.offline = true;
  auto directory =
      io::ModelDirectory::open(io::resolve_model(model, hub, {}).path);
  auto tokenizer = generate::load_tokenizer(directory);
  require_ram(
      directory.loaded_bytes(), "the weights of " + directory.path().string());
  auto network = models::load_model(directory);
  return {std::move(directory), std::move(tokenizer), std::move(network)};
}

GeneratedText generate_text(
    const LoadedModel& model,
    const std::string& prompt,
    const TextOptions& options) {
  const auto tokens = generate::encode_prompt(
      model.directory,
      *model.tokenizer,
      {.text = prompt, .system = options.system, .raw = options.raw});
  auto wanted = generate::read_generation_config(model.directory);
  GeneratedText result{
      .text = {}, .completion = {}, .notices = std::move(wanted.notices)};
  text::StreamingDetokenizer detokenizer(model.tokenizer, true);
  const auto emit = [&](const std::string& piece) {
    result.text += piece;
    if (options.on_text && !piece.empty()) {
      options.on_text(piece);
    }
  };
  const auto chosen =
      choose_options(model, std::move(wanted), options, tokens.size());
  const models::Setup setup(model.network, options.compute);
  generate::answer_limit(
      *setup.model, tokens.size(), chosen.max_tokens, chosen.clamp_max_tokens);
  require_cache_room(setup, tokens.size(), options);
  generate::Engine engine(setup, {.max_cache_bytes = options.max_cache_bytes});
  result.completion = generate::generate(
      engine, tokens, chosen, [&](std::size_t, std::int32_t token) {
        emit(detokenizer.push(token));
      });
  emit(detokenizer.finish());
  return result;
}

artifacts::PerplexityScores measure_perplexity(
    const LoadedModel& model,
    const std::filesystem::path& data,
    const MeasureOptions& options) {
  const auto dataset = eval::load_dataset(data, options.limit);
  return eval::measure_perplexity(
      {model.network, options.compute},
      encode(dataset, model.directory, *model.tokenizer, options),
      {.on_progress = options.on_progress});
}

artifacts::KlScores measure_kl(
    const LoadedModel& reference,
    const LoadedModel& model,
    const std::filesystem::path& data,
    const MeasureOptions& options) {
  const auto dataset = eval::load_dataset(data, options.limit);
  const auto rows = encode(dataset, model.directory, *model.tokenizer, options);
  eval::require_same_tokens(
      rows,
      encode(dataset, model.directory, *reference.tokenizer, options),
      model.directory.path().string(),
      reference.directory.path().string(),
      dataset.name);
  return eval::measure_kl(
      {reference.network, kernels::Compute::Exact},
      {model.network, options.compute},
      rows,
      {.on_progress = options.on_progress});
}

} // namespace optiq
