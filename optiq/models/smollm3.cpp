#include <vector>

#include "optiq/models/families_impl.h"
#include "optiq/models/transformer_impl.h"

namespace optiq::models {
namespace {

/** Per layer whether it has RoPE: no_rope_layers, whose entries are 1 where it
 * has, or all but every no_rope_layer_interval-th. */
std::vector<bool> parse_turning_layers(
    const ConfigReader& config,
    int n_layers) {
  std::vector<bool> turns(n_layers);
  const artifacts::Json* list = config.find("no_rope_layers");
  if (list == nullptr) {
    const int interval =
        config.bounded_or("no_rope_layer_interval", kMaxLayers, 4);
    for (int i = 0; i < n_layers; ++i) {
      turns[i] = (i + 1) % interval != 0;
    }
    return turns;
  }
  config.require(
      list->is_array() && list->size() == turns.size(),
      ErrorKind::Corrupt,
      "no_rope_layers must be a list of num_hidden_layers numbers");
  for (int i = 0; i < n_layers; ++i) {
    const artifacts::Json& entry = list->at(i);
    config.require(
        entry == 0 || entry == 1,
        ErrorKind::Corrupt,
        "no_rope_layers has " + artifacts::describe(entry) +
            ", expected 0 or 1");
    turns[i] = entry == 1;
  }
  return turns;
}

/** SmolLM3: Llama without RoPE in some layers. */
TransformerConfig parse_smollm3_config(const ConfigReader& config) {
  TransformerConfig smol = parse_llama_config(config);
  smol.model_type = kSmolLm3.model_type;
  config.require(
      config.find("layer_types") != nullptr ||
          !config.flag_or("use_sliding_window", false),
      ErrorKind::Unsupported,
      "use_sliding_window without layer_types");
  const std::vector<bool> turns =
      parse_turning_layers(config, static_cast<int>(smol.layers.size()));
  for (std::size_t i = 0; i < turns.size(); ++i) {
    if (!turns[i]) {
      smol.layers[i].rope.reset();
    }
  }
  return smol;
}

std::unique_ptr<Model> load_smollm3(
    const io::ModelDirectory& directory,
    kernels::Device& device) {
  return load_transformer(
      directory, device, "parse_smollm3_config", parse_smollm3_config);
}

} // namespace

const Family kSmolLm3{"smollm3", sanitize_transformer, load_smollm3};

} // namespace optiq::models
