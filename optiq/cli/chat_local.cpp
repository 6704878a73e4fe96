#include <algorithm>
#include <utility>

#include "optiq/base/system.h"
#include "optiq/cli/adapter_option.h"
#include "optiq/cli/chat_model.h"
#include "optiq/cli/model_option.h"
#include "optiq/cli/output.h"
#include "optiq/generate/answer_text.h"
#include "optiq/generate/defaults.h"
#include "optiq/generate/engine.h"
#include "optiq/generate/generation_config.h"
#include "optiq/generate/generator.h"
#include "optiq/kernels/devices.h"
#include "optiq/text/reasoning.h"

namespace optiq::cli {
namespace {

generate::EngineOptions engine_options(const kernels::Device& device) {
  generate::EngineOptions options;
  options.max_cache_bytes = static_cast<std::size_t>(std::min<std::uint64_t>(
      options.max_cache_bytes, kernels::available_bytes(device) / 2));
  return options;
}

/** A model in this process. */
class LocalChat final : public ChatModel {
 public:
  LocalChat(
      const io::ModelDirectory& directory,
      const models::Setup& setup,
      const AnswerFlags& flags)
      : path_(directory.path()),
        tokenizer_(generate::load_tokenizer(directory)),
        template_(generate::load_chat_template(directory)),
        markers_(text::find_reasoning_markers(template_, *tokenizer_)),
        config_(generate::read_generation_config(directory)),
        stop_ids_(generate::stop_ids(directory, *tokenizer_)),
        max_tokens_(flags.max_tokens),
        engine_(setup, engine_options(setup.model->device())) {
    generate::override_sampler(flags.sampling, config_.sampler);
    generate::override_logits(flags.sampling, config_.logits);
    config_.sampler.seed = choose_seed(flags.seed);
    for (const std::string& notice : config_.notices) {
      print_error("note: {}\n", notice);
    }
  }

  std::string name() const override {
    return name_of_model(path_);
  }
  std::filesystem::path path() const override {
    return path_;
  }

  AnswerEnd answer(
      const artifacts::Json& messages,
      const std::atomic<bool>& stop,
      const AnswerSink& sink) override {
    const std::string rendered = template_.render_chat(messages, true);
    const auto prompt = tokenizer_->encode(rendered, false);
    generate::AnswerText text(
        tokenizer_,
        {.stop_strings = config_.stop_strings,
         .keep_stop_string = true,
         .reasoning = markers_,
         .starts_in_reasoning =
             markers_ && text::opens_reasoning(rendered, *markers_)});
    const generate::GenerateOptions options{
        .max_tokens = max_tokens_.value_or(
            config_.max_new_tokens || config_.max_length
                ? config_.default_max_tokens(prompt.size())
                : engine_.model().info().max_positions),
        .clamp_max_tokens = !max_tokens_,
        .logits = config_.logits,
        .sampler = config_.sampler,
        .stop_ids = stop_ids_,
        .stop_strings = config_.stop_strings,
        .tokenizer = tokenizer_,
        .cancel = &stop};
    ++config_.sampler.seed; // another answer draws anew
    const auto completion = generate::generate(
        engine_, prompt, options, [&](std::size_t, std::int32_t token) {
          const auto piece = text.push(token);
          sink(piece.content, piece.reasoning);
        });
    const auto rest = text.finish();
    sink(rest.content, rest.reasoning);
    switch (completion.reason) {
      case generate::FinishReason::Length:
        return AnswerEnd::TooLong;
      case generate::FinishReason::Cancelled:
        return AnswerEnd::Stopped;
      default:
        return AnswerEnd::Complete;
    }
  }

 private:
  std::filesystem::path path_;
  std::shared_ptr<const text::Tokenizer> tokenizer_;
  text::ChatTemplate template_;
  std::optional<text::ReasoningMarkers> markers_;
  generate::GenerationConfig config_;
  std::vector<std::int32_t> stop_ids_;
  std::optional<int> max_tokens_;
  generate::Engine engine_;
};

} // namespace

std::unique_ptr<ChatModel> open_local_chat(
    const io::ModelDirectory& directory,
    const LocalFlags& local,
    const AnswerFlags& flags) {
  return std::make_unique<LocalChat>(
      directory,
      with_adapters(
          make_setup(
              load_checked(directory, kernels::find_device(local.device)),
              local.compute,
              local.kv),
          local.adapters),
      flags);
}

} // namespace optiq::cli
