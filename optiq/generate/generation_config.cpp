#include "optiq/generate/generation_config.h"

#include <algorithm>

#include "optiq/base/error.h"

namespace optiq::generate {
namespace {

using artifacts::Json;

constexpr int kDefaultNewTokens = 256;
constexpr const char* kFile = "generation_config.json";

/** Where a value is read. */
struct Source {
  const Json& config;
  const char* key;
  const std::string& where;

  template <typename T>
  T get() const {
    return artifacts::required<T>(config, key, where);
  }
};

using Reader = void (*)(const Source& source, GenerationConfig& made);

template <auto Member>
void read_sampler(const Source& source, GenerationConfig& made) {
  using T = std::remove_reference_t<decltype(made.sampler.*Member)>;
  made.sampler.*Member = source.get<T>();
}

template <auto Member>
void read_logits(const Source& source, GenerationConfig& made) {
  using T = std::remove_reference_t<decltype(made.logits.*Member)>;
  made.logits.*Member = source.get<T>();
}

template <auto Member>
void read_length(const Source& source, GenerationConfig& made) {
  const int length = source.get<int>();
  if (length < 1) {
    fail(
        ErrorKind::InvalidInput,
        "[read_generation_config] {}: '{}' is {}, expected at least 1",
        source.where,
        source.key,
        length);
  }
  made.*Member = length;
}

void read_forced_bos(const Source& source, GenerationConfig& made) {
  made.logits.forced_bos = source.get<std::int32_t>();
}

void read_forced_eos(const Source& source, GenerationConfig& made) {
  made.logits.forced_eos = source.config[source.key].is_array()
      ? source.get<std::vector<std::int32_t>>()
      : std::vector{source.get<std::int32_t>()};
}

void read_stop_strings(const Source& source, GenerationConfig& made) {
  made.stop_strings = source.config[source.key].is_string()
      ? std::vector{source.get<std::string>()}
      : source.get<std::vector<std::string>>();
  std::erase(made.stop_strings, "");
}

/** Somebody else reads it, or it needs no reading. */
void read_elsewhere(const Source&, GenerationConfig&) {}

struct Row {
  const char* key;
  KeyEffect effect;
  Reader read = read_elsewhere; // of what is honoured
  bool only_drawing = false; // means nothing to greedy answers
  double neutral =
      0; // of what is not honoured: the value that asks for nothing
};

constexpr auto kHonoured = KeyEffect::Honoured;
constexpr auto kInert = KeyEffect::Inert;
constexpr auto kRefused = KeyEffect::Refused;

constexpr Row kRows[] = {
    // Chosen here.
    {"do_sample", kHonoured},
    {"temperature",
     kHonoured,
     read_sampler<&SamplerOptions::temperature>,
     true},
    {"top_k", kHonoured, read_sampler<&SamplerOptions::top_k>, true},
    {"top_p", kHonoured, read_sampler<&SamplerOptions::top_p>, true},
    {"min_p", kHonoured, read_sampler<&SamplerOptions::min_p>, true},
    {"typical_p", kHonoured, read_sampler<&SamplerOptions::typical_p>, true},
    {"epsilon_cutoff",
     kHonoured,
     read_sampler<&SamplerOptions::epsilon_cutoff>,
     true},
    {"eta_cutoff", kHonoured, read_sampler<&SamplerOptions::eta_cutoff>, true},
    {"repetition_penalty",
     kHonoured,
     read_logits<&LogitsOptions::repetition_penalty>},
    // vLLM's and OpenAI's names: transformers has no such penalties.
    {"presence_penalty",
     kHonoured,
     read_logits<&LogitsOptions::presence_penalty>},
    {"frequency_penalty",
     kHonoured,
     read_logits<&LogitsOptions::frequency_penalty>},
    {"no_repeat_ngram_size",
     kHonoured,
     read_logits<&LogitsOptions::no_repeat_ngram_size>},
    {"bad_words_ids", kHonoured, read_logits<&LogitsOptions::bad_words>},
    {"suppress_tokens", kHonoured, read_logits<&LogitsOptions::suppressed>},
    {"begin_suppress_tokens",
     kHonoured,
     read_logits<&LogitsOptions::suppressed_first>},
    {"forced_bos_token_id", kHonoured, read_forced_bos},
    {"forced_eos_token_id", kHonoured, read_forced_eos},
    {"min_length", kHonoured, read_logits<&LogitsOptions::min_length>},
    {"min_new_tokens", kHonoured, read_logits<&LogitsOptions::min_new_tokens>},
    {"max_length", kHonoured, read_length<&GenerationConfig::max_length>},
    {"max_new_tokens",
     kHonoured,
     read_length<&GenerationConfig::max_new_tokens>},
    {"stop_strings", kHonoured, read_stop_strings},
    {"eos_token_id", kHonoured}, // by stop_ids
    // Not implemented.
    {"top_h", KeyEffect::Noticed, read_elsewhere, true},
    {"max_time", KeyEffect::Noticed},
    {"num_beams", kRefused, read_elsewhere, false, 1},
    {"num_beam_groups", kRefused, read_elsewhere, false, 1},
    {"guidance_scale", kRefused, read_elsewhere, false, 1},
    {"encoder_repetition_penalty", kRefused, read_elsewhere, false, 1},
    {"encoder_no_repeat_ngram_size", kRefused},
    {"exponential_decay_length_penalty", kRefused},
    {"sequence_bias", kRefused},
    {"watermarking_config", kRefused},
    {"token_healing", kRefused},
    {"penalty_alpha", kRefused},
    {"dola_layers", kRefused},
    {"constraints", kRefused},
    {"force_words_ids", kRefused},
    // Of beams, encoders, caches, speculation, output: no token of one answer
    // depends on them.
    {"early_stopping", kInert},
    {"length_penalty", kInert},
    {"diversity_penalty", kInert},
    {"num_return_sequences", kInert},
    {"decoder_start_token_id", kInert},
    {"bos_token_id", kInert},
    {"pad_token_id", kInert},
    {"use_cache", kInert},
    {"cache_implementation", kInert},
    {"cache_config", kInert},
    {"max_cache_len", kInert},
    {"prefill_chunk_size", kInert},
    {"low_memory", kInert},
    {"remove_invalid_values", kInert}, // what is no number is never chosen
    {"renormalize_logits", kInert},
    {"use_mtp", kInert},
    {"is_assistant", kInert},
    {"num_assistant_tokens", kInert},
    {"num_assistant_tokens_schedule", kInert},
    {"assistant_confidence_threshold", kInert},
    {"assistant_early_exit", kInert},
    {"assistant_lookbehind", kInert},
    {"assistant_ensemble_weight", kInert},
    {"target_lookbehind", kInert},
    {"prompt_lookup_num_tokens", kInert},
    {"max_matching_ngram_size", kInert},
    {"speculation_type", kInert},
    {"output_attentions", kInert},
    {"output_hidden_states", kInert},
    {"output_scores", kInert},
    {"output_logits", kInert},
    {"return_dict_in_generate", kInert},
    {"compile_config", kInert},
    {"disable_compile", kInert},
    {"continuous_batching_config", kInert},
    {"transformers_version", kInert},
};

/** Whether a value asks for nothing. */
bool is_neutral(const Json& value, double neutral) {
  return value.is_null() || value == false ||
      (value.is_number() && value.get<double>() == neutral) ||
      (value.is_structured() && value.empty());
}

void read_row(const Row& row, const Source& source, GenerationConfig& made) {
  const Json& value = source.config[row.key];
  if (row.effect == KeyEffect::Honoured) {
    row.read(source, made);
  } else if (row.effect == KeyEffect::Inert || is_neutral(value, row.neutral)) {
    return;
  } else if (row.effect == KeyEffect::Noticed) {
    made.notices.push_back(fmt::format(
        "{}: '{}' is {}, which is not implemented: answers are made without it",
        source.where,
        row.key,
        artifacts::describe(value)));
  } else {
    fail(
        ErrorKind::Unsupported,
        "[read_generation_config] {}: '{}' is {}, which is not implemented and "
        "changes every answer. Remove the key to generate without it",
        source.where,
        row.key,
        artifacts::describe(value));
  }
}

/** validate, with the file's name in the error. */
template <typename Options>
void validate_of(const Options& options, const std::string& where) {
  try {
    validate(options);
  } catch (const Error& error) {
    fail(error.kind(), "[read_generation_config] {}: {}", where, error.what());
  }
}

} // namespace

int GenerationConfig::default_max_tokens(std::size_t n_prompt) const {
  if (max_new_tokens || !max_length) {
    return max_new_tokens.value_or(kDefaultNewTokens);
  }
  if (static_cast<std::size_t>(*max_length) <= n_prompt) {
    fail(
        ErrorKind::InvalidInput,
        "[default_max_tokens] {} prompt tokens leave no room for an answer in "
        "the model's max_length of {}. Shorten the prompt or choose the number "
        "of new tokens",
        n_prompt,
        *max_length);
  }
  return *max_length - static_cast<int>(n_prompt);
}

GenerationConfig read_generation_config(const io::ModelDirectory& directory) {
  const Json& config = directory.generation_config();
  const std::string where = directory.side_path(kFile);
  const bool draws =
      artifacts::optional_or<bool>(config, "do_sample", where, false);
  GenerationConfig made;
  if (draws) {
    // What transformers takes for values that the file leaves out.
    made.sampler = {
        .temperature = 1.f, .top_k = 50, .order = FilterOrder::Transformers};
  }
  for (const Row& row : kRows) {
    const auto value = config.find(row.key);
    if (value != config.end() && !value->is_null() &&
        (draws || !row.only_drawing)) {
      read_row(row, {config, row.key, where}, made);
    }
  }
  if (made.logits.min_new_tokens > 0) {
    made.logits.min_length = 0;
  }
  validate_of(made.sampler, where);
  validate_of(made.logits, where);
  return made;
}

std::vector<GenerationKey> generation_keys() {
  std::vector<GenerationKey> keys;
  for (const Row& row : kRows) {
    keys.push_back({row.key, row.effect});
  }
  return keys;
}

} // namespace optiq::generate
