#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "optiq/artifacts/eval_result.h"
#include "optiq/base/error.h"
#include "optiq/base/progress.h"
#include "optiq/generate/generator.h"
#include "optiq/generate/sampler.h"
#include "optiq/io/model_directory.h"
#include "optiq/models/model.h"
#include "optiq/text/tokenizer.h"

/**
 * The front door of the library: load a model, generate text, measure
 * (examples/quick_start.cpp). What it leaves out is in the rooms behind it,
 * which take the parts of a LoadedModel: many prompts at a time, tokens as they
 * come and kept prefixes in generate/generator.h, LoRA adapters in
 * adapters/adapter_set.h (examples/mounted_adapters.cpp), more tasks in eval/,
 * convert in quant/convert.h. All throw optiq::Error.
 */
namespace optiq {

/** A model that is ready to run. Nothing in it changes: copies share it, and
 * so may threads. */
struct LoadedModel {
  io::ModelDirectory directory;
  std::shared_ptr<const text::Tokenizer> tokenizer;
  std::shared_ptr<const models::Model> network;
};

/**
 * Loads a directory (MLX or Hugging Face), a .gguf file, or
 * org/name[@revision][:file.gguf] of the hub when its cache holds it: nothing
 * is downloaded (io::fetch_model does that). Throws NotFound, Denied, Corrupt,
 * Unsupported, and Exhausted when the weights exceed the available RAM.
 */
LoadedModel load_model(const std::string& model);

struct TextOptions {
  std::optional<std::string> system; // the message before the prompt
  bool raw = false; // the prompt as it is, without the model's chat template
  /** Without them as generation_config.json says: its length, else 256 tokens
   * at most; its sampler with seed 0, or greedy. */
  std::optional<int> max_tokens;
  std::optional<generate::SamplerOptions> sampler;
  kernels::Compute compute = kernels::Compute::Fast;
  std::size_t max_cache_bytes = generate::EngineOptions{}.max_cache_bytes;
  /** Gets the text piece by piece, never half a character. May throw to stop;
   * may be empty. */
  std::function<void(const std::string&)> on_text;
};

struct GeneratedText {
  std::string text;
  generate::Completion completion; // its tokens and what ended it
  /** What the model's generation_config.json asks and was not done. */
  std::vector<std::string> notices;
};

/** Answers a prompt. Throws InvalidInput for options out of range or a prompt
 * that leaves no position for an answer, NotFound for a model without a chat
 * template, Exhausted when K/V exceeds max_cache_bytes. */
GeneratedText generate_text(
    const LoadedModel& model,
    const std::string& prompt,
    const TextOptions& options = {});

struct MeasureOptions {
  std::size_t limit = 0; // rows or chunks of the data at most; 0 = all
  std::optional<std::size_t> seq_len; // tokens of a chunk of plain text, 512
  kernels::Compute compute = kernels::Compute::Exact;
  ProgressSink on_progress; // may be empty
};

/** Perplexity on a file of eval/dataset.h: rows of questions and answers, or
 * plain text. Throws as load_dataset and eval::measure_perplexity. */
artifacts::PerplexityScores measure_perplexity(
    const LoadedModel& model,
    const std::filesystem::path& data,
    const MeasureOptions& options = {});

/** KL(reference || model) of the next-token distributions on such a file, in
 * nats. Throws as eval::measure_kl, and InvalidInput for two tokenizers that
 * give different tokens. */
artifacts::KlScores measure_kl(
    const LoadedModel& reference,
    const LoadedModel& model,
    const std::filesystem::path& data,
    const MeasureOptions& options = {});

} // namespace optiq
