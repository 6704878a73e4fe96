#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <unistd.h>

#include "optiq/artifacts/json.h"
#include "optiq/base/error.h"
#include "optiq/base/system.h"
#include "optiq/cli/adapter_option.h"
#include "optiq/cli/commands.h"
#include "optiq/cli/interrupt.h"
#include "optiq/cli/kv_options.h"
#include "optiq/cli/model_option.h"
#include "optiq/cli/output.h"
#include "optiq/cli/sampling_flags.h"
#include "optiq/generate/defaults.h"
#include "optiq/generate/engine.h"
#include "optiq/generate/generation_config.h"
#include "optiq/generate/generator.h"
#include "optiq/kernels/devices.h"
#include "optiq/kernels/machine.h"
#include "optiq/text/tokenizer.h"

namespace optiq::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kMaxPromptBytes = 16u << 20;

struct GenerateFlags {
  std::string model;
  std::optional<std::string> prompt;
  std::optional<std::string> system;
  bool raw = false;
  bool json = false;
  std::optional<int> max_tokens;
  generate::SamplingChoice sampling;
  std::optional<std::uint64_t> seed;
  kernels::Compute compute = kernels::Compute::Fast;
  std::string device = "auto";
  KvFlags kv;
  std::vector<std::string> adapters;
};

std::string read_prompt(const GenerateFlags& flags) {
  if (flags.prompt && *flags.prompt != "-") {
    return *flags.prompt;
  }
  if (!flags.prompt && isatty(STDIN_FILENO) != 0) {
    fail(
        ErrorKind::InvalidInput,
        "[generate] no prompt. Give one with -p TEXT, or pipe it in");
  }
  return read_standard_input(kMaxPromptBytes);
}

/** The model's own options, with the flags over them. */
generate::GenerateOptions choose_options(
    const GenerateFlags& flags,
    const io::ModelDirectory& directory,
    std::shared_ptr<const text::Tokenizer> tokenizer,
    std::size_t n_prompt) {
  auto wanted = generate::read_generation_config(directory);
  for (const std::string& notice : wanted.notices) {
    print_error("note: {}\n", notice);
  }
  generate::override_sampler(flags.sampling, wanted.sampler);
  generate::override_logits(flags.sampling, wanted.logits);
  wanted.sampler.seed = choose_seed(flags.seed);
  return {
      .max_tokens = flags.max_tokens ? *flags.max_tokens
                                     : wanted.default_max_tokens(n_prompt),
      .clamp_max_tokens = !flags.max_tokens,
      .logits = std::move(wanted.logits),
      .sampler = wanted.sampler,
      .stop_ids = generate::stop_ids(directory, *tokenizer),
      .stop_strings = std::move(wanted.stop_strings),
      .tokenizer = std::move(tokenizer),
      .share_prefixes = false}; // with whom? the process answers one prompt
}

const char* reason_name(generate::FinishReason reason) {
  switch (reason) {
    case generate::FinishReason::Stop:
      return "stop";
    case generate::FinishReason::Length:
      return "length";
    case generate::FinishReason::Cancelled:
      return "cancelled";
    case generate::FinishReason::Failed:
      return "failed";
  }
  return "";
}

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

/** Text and timing of one completion, built token by token. */
struct Stream {
  text::StreamingDetokenizer detokenizer;
  bool print;
  std::string text;
  Clock::time_point first_token;

  void emit(const std::string& piece) {
    text += piece;
    if (print) {
      print_output(piece);
    }
  }
};

void print_json(
    const GenerateFlags& flags,
    const Stream& stream,
    const generate::Completion& completion,
    const generate::GenerateOptions& options,
    std::size_t n_prompt,
    double prefill_seconds,
    double decode_seconds) {
  const auto n = completion.tokens.size();
  const generate::SamplerOptions& sampler = options.sampler;
  artifacts::Json result{
      {"model", flags.model},
      {"text", stream.text},
      {"finish_reason", reason_name(completion.reason)},
      {"tokens", completion.tokens},
      {"prompt_tokens", n_prompt},
      {"completion_tokens", n},
      {"prefill_tokens_per_second",
       static_cast<double>(n_prompt) / prefill_seconds},
      {"decode_tokens_per_second",
       n > 1 && decode_seconds > 0 ? static_cast<double>(n - 1) / decode_seconds
                                   : 0.0},
      {"compute", name_of(flags.compute)},
      {"device", kernels::find_device(flags.device).name()},
      {"simd", kernels::simd_target()},
      {"temperature", sampler.temperature},
      {"top_p", sampler.top_p},
      {"min_p", sampler.min_p},
      {"kv", describe_kv(flags.kv)},
      {"adapters", flags.adapters},
      {"top_k", sampler.top_k},
      {"typical_p", sampler.typical_p},
      {"repetition_penalty", options.logits.repetition_penalty},
      {"presence_penalty", options.logits.presence_penalty},
      {"frequency_penalty", options.logits.frequency_penalty},
      {"max_tokens", options.max_tokens},
      {"seed", sampler.seed},
      {"peak_rss_bytes", peak_rss_bytes()}};
  print_json_document(result);
}

/** Bytes of K/V for the longest answer. Throws Exhausted. */
std::size_t require_cache(
    const models::Setup& setup,
    std::size_t n_prompt,
    const generate::GenerateOptions& options) {
  const std::size_t needed = cache::sequence_bytes(
      setup.layout,
      n_prompt + static_cast<std::size_t>(options.max_tokens),
      generate::EngineOptions{}.prefill_chunk);
  kernels::require_bytes(setup.model->device(), needed, "the KV cache");
  return needed;
}

models::Setup load_setup(
    const GenerateFlags& flags,
    const io::ModelDirectory& directory) {
  return with_adapters(
      make_setup(
          load_checked(directory, kernels::find_device(flags.device)),
          flags.compute,
          flags.kv),
      flags.adapters);
}

void run_generate(const GenerateFlags& flags) {
  const auto directory = open_model(flags.model);
  const auto tokenizer = generate::load_tokenizer(directory);
  const auto prompt = generate::encode_prompt(
      directory,
      *tokenizer,
      {.text = read_prompt(flags), .system = flags.system, .raw = flags.raw});
  auto options = choose_options(flags, directory, tokenizer, prompt.size());
  const models::Setup setup = load_setup(flags, directory);
  options.max_tokens = generate::answer_limit(
      *setup.model,
      prompt.size(),
      options.max_tokens,
      options.clamp_max_tokens);
  generate::Engine engine(
      setup, {.max_cache_bytes = require_cache(setup, prompt.size(), options)});

  const InterruptGuard interrupt;
  options.cancel = &interrupt.flag();
  Stream stream{
      .detokenizer = text::StreamingDetokenizer(tokenizer, true),
      .print = !flags.json};
  const auto start = Clock::now();
  stream.first_token = start;
  const auto completion = generate::generate(
      engine, prompt, options, [&](std::size_t, std::int32_t token) {
        if (stream.first_token == start) {
          stream.first_token = Clock::now();
        }
        stream.emit(stream.detokenizer.push(token));
      });
  const auto end = Clock::now();
  if (stream.first_token == start) {
    stream.first_token = end; // the first token was a stop token
  }
  stream.emit(stream.detokenizer.finish());
  if (flags.json) {
    print_json(
        flags,
        stream,
        completion,
        options,
        prompt.size(),
        seconds_between(start, stream.first_token),
        seconds_between(stream.first_token, end));
  } else {
    print_output("\n");
  }
  if (completion.reason == generate::FinishReason::Cancelled) {
    fail(
        ErrorKind::Cancelled,
        "[generate] interrupted after {} tokens",
        completion.tokens.size());
  }
}

} // namespace

void add_generate_command(CLI::App& app) {
  auto* command = app.add_subcommand(
      "generate", "Complete a prompt, token by token on stdout");
  auto flags = std::make_shared<GenerateFlags>();
  add_model_option(*command, flags->model);
  command->add_option(
      "-p,--prompt", flags->prompt, "Prompt; without it, or with -, stdin");
  command->add_option("--system", flags->system, "System message");
  command->add_flag(
      "--raw", flags->raw, "Feed the prompt as it is, without chat template");
  command->add_option(
      "--max-tokens",
      flags->max_tokens,
      "New tokens at most (default: the model's generation_config, else 256)");
  add_sampling_options(*command, flags->sampling);
  command->add_option(
      "--seed", flags->seed, "Seed of sampling (default: the time)");
  add_compute_option(*command, flags->compute);
  add_device_option(*command, flags->device);
  add_kv_options(*command, flags->kv);
  add_adapter_option(*command, flags->adapters, kAdaptersToRunWith);
  add_threads_option(*command);
  command->add_flag(
      "--json", flags->json, "One JSON object with text, tokens and timings");
  command->footer(
      "Examples:\n"
      "  optiq generate DIR -p \"What is 7 times 8?\"\n"
      "  echo \"Once upon a time\" | optiq generate DIR --raw --temp 0");
  command->callback([flags] { run_generate(*flags); });
}

} // namespace optiq::cli
