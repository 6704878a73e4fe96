#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <unistd.h>

#include "optiq/artifacts/json.h"
#include "optiq/base/error.h"
#include "optiq/base/system.h"
#include "optiq/cli/commands.h"
#include "optiq/cli/interrupt.h"
#include "optiq/cli/kv_options.h"
#include "optiq/cli/model_option.h"
#include "optiq/cli/output.h"
#include "optiq/generate/defaults.h"
#include "optiq/generate/generator.h"
#include "optiq/text/chat_template.h"
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
  int max_tokens = 256;
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<int> top_k;
  std::optional<std::uint64_t> seed;
  kernels::Compute compute = kernels::Compute::Fast;
  KvFlags kv;
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

std::vector<std::int32_t> encode_prompt(
    const GenerateFlags& flags,
    const io::ModelDirectory& directory,
    const text::Tokenizer& tokenizer) {
  const std::string prompt = read_prompt(flags);
  if (flags.raw) {
    if (flags.system) {
      fail(
          ErrorKind::InvalidInput,
          "[generate] --system goes through the chat template, --raw does "
          "without it: give one of them");
    }
    return tokenizer.encode(prompt, true);
  }
  const auto chat = generate::load_chat_template(directory);
  auto messages = artifacts::Json::array();
  if (flags.system) {
    messages.push_back({{"role", "system"}, {"content", *flags.system}});
  }
  messages.push_back({{"role", "user"}, {"content", prompt}});
  return tokenizer.encode(chat.render_chat(messages, true), false);
}

generate::SamplerOptions choose_sampler(
    const GenerateFlags& flags,
    const io::ModelDirectory& directory) {
  auto sampler = generate::default_sampler(directory);
  sampler.temperature = flags.temperature.value_or(sampler.temperature);
  sampler.top_p = flags.top_p.value_or(sampler.top_p);
  sampler.min_p = flags.min_p.value_or(sampler.min_p);
  sampler.top_k = flags.top_k.value_or(sampler.top_k);
  sampler.seed = flags.seed.value_or(static_cast<std::uint64_t>(
      std::chrono::system_clock::now().time_since_epoch().count()));
  generate::validate(sampler);
  return sampler;
}

const char* reason_name(generate::FinishReason reason) {
  switch (reason) {
    case generate::FinishReason::Stop:
      return "stop";
    case generate::FinishReason::Length:
      return "length";
    case generate::FinishReason::Cancelled:
      return "cancelled";
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
    const generate::SamplerOptions& sampler,
    std::size_t n_prompt,
    double prefill_seconds,
    double decode_seconds) {
  const auto n = completion.tokens.size();
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
      {"simd", kernels::simd_target()},
      {"temperature", sampler.temperature},
      {"top_p", sampler.top_p},
      {"min_p", sampler.min_p},
      {"kv", describe_kv(flags.kv)},
      {"top_k", sampler.top_k},
      {"seed", sampler.seed},
      {"peak_rss_bytes", peak_rss_bytes()}};
  print_json_document(result);
}

/** What K/V and state of prompt and answer may take. */
std::size_t cache_bytes(
    const models::Model& model,
    const GenerateFlags& flags,
    std::size_t n_prompt) {
  const auto layout = model.cache_layout(models::kv_dtype(flags.compute));
  return cache::sequence_bytes(
      layout,
      n_prompt + flags.max_tokens,
      generate::EngineOptions{}.prefill_chunk);
}

void run_generate(const GenerateFlags& flags) {
  const auto directory = open_model(flags.model);
  const auto tokenizer = generate::load_tokenizer(directory);
  const auto sampler = choose_sampler(flags, directory);
  const auto prompt = encode_prompt(flags, directory, *tokenizer);
  const auto model = with_kv_flags(load_checked(directory), flags.kv);
  const std::size_t needed = cache_bytes(*model, flags, prompt.size());
  require_ram(needed, "the KV cache");
  generate::Engine engine(
      model, {.compute = flags.compute, .max_cache_bytes = needed});

  const InterruptGuard interrupt;
  Stream stream{
      .detokenizer = text::StreamingDetokenizer(tokenizer, true),
      .print = !flags.json};
  const auto start = Clock::now();
  stream.first_token = start;
  const auto completion = generate::generate(
      engine,
      prompt,
      {.max_tokens = flags.max_tokens,
       .sampler = sampler,
       .stop_ids = generate::stop_ids(directory, *tokenizer),
       .share_prefixes = false, // with whom? the process answers one prompt
       .cancel = &interrupt.flag()},
      [&](std::size_t, std::int32_t token) {
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
        sampler,
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
  command->add_option("--max-tokens", flags->max_tokens, "New tokens at most")
      ->capture_default_str();
  command->add_option(
      "--temp",
      flags->temperature,
      "Temperature, 0 = greedy (default: the model's generation_config)");
  command->add_option("--top-p", flags->top_p, "Nucleus sampling, (0, 1]");
  command->add_option("--top-k", flags->top_k, "Best k tokens, 0 = all");
  command->add_option(
      "--min-p", flags->min_p, "Least share of the best token's probability");
  command->add_option(
      "--seed", flags->seed, "Seed of sampling (default: the time)");
  add_compute_option(*command, flags->compute);
  add_kv_options(*command, flags->kv);
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
