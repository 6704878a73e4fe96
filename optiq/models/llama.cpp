#include "optiq/models/families_impl.h"
#include "optiq/models/transformer_impl.h"

namespace optiq::models {

TransformerConfig parse_llama_config(const ConfigReader& config) {
  TransformerConfig llama = parse_transformer_sizes(config);
  llama.model_type = config.text_or("model_type", kLlama.model_type);
  require_activation(config, "hidden_act", "silu");
  llama.biases.qkv = config.flag_or("attention_bias", false);
  llama.biases.o = llama.biases.qkv;
  llama.biases.mlp = config.flag_or("mlp_bias", false);
  // Mistral 7B v0.1 slides in every layer and has no layer_types.
  const int fallback = llama.model_type == kMistral.model_type
      ? config.bounded_or("sliding_window", kMaxPositions, 0)
      : 0;
  set_layers(
      llama,
      parse_rope(
          config,
          {.theta = 1e4,
           .max_positions = llama.max_positions,
           .is_interleaved = config.flag_or("rope_traditional", false)}),
      parse_windows(config, static_cast<int>(llama.layers.size()), fallback));
  check_layers(config, llama);
  return llama;
}

namespace {

std::unique_ptr<Model> load_llama(
    const io::ModelDirectory& directory,
    kernels::Device& device) {
  return load_transformer(
      directory, device, "parse_llama_config", parse_llama_config);
}

} // namespace

const Family kLlama{"llama", sanitize_transformer, load_llama};
const Family kMistral{"mistral", sanitize_transformer, load_llama};

} // namespace optiq::models
