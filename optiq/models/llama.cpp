#include "optiq/models/families_impl.h"
#include "optiq/models/transformer_impl.h"

namespace optiq::models {
namespace {

/** Llama 1 to 3.x and what has its shape: SmolLM2, Mistral. */
TransformerConfig parse_llama_config(
    const artifacts::Json& json,
    const std::string& where) {
  const ConfigReader config(json, "parse_llama_config", where);
  TransformerConfig llama = parse_transformer_sizes(config);
  llama.model_type = config.text_or("model_type", kLlama.model_type);
  require_activation(config, "hidden_act", "silu");
  // Mistral 7B v0.1 slides in every layer and has no layer_types.
  const int fallback = llama.model_type == kMistral.model_type
      ? config.bounded_or("sliding_window", kMaxPositions, 0)
      : 0;
  const RopeConfig rope = parse_rope(config, 1e4);
  const auto windows =
      parse_windows(config, static_cast<int>(llama.layers.size()), fallback);
  for (std::size_t i = 0; i < windows.size(); ++i) {
    llama.layers[i].rope = rope;
    llama.layers[i].window = windows[i];
  }
  check_layers(config, llama);
  return llama;
}

std::unique_ptr<Model> load_llama(const io::ModelDirectory& directory) {
  return load_transformer(
      directory,
      parse_llama_config(
          directory.config(), (directory.path() / "config.json").string()));
}

} // namespace

const Family kLlama{"llama", sanitize_transformer, load_llama};
const Family kMistral{"mistral", sanitize_transformer, load_llama};

} // namespace optiq::models
