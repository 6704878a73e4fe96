#include "optiq/models/families_impl.h"
#include "optiq/models/transformer_impl.h"

namespace optiq::models {
namespace {

/** Command R7B and A: attention and MLP side by side behind one LayerNorm; RoPE
 * in pairs of neighbours in the sliding layers alone. */
TransformerConfig parse_cohere2_config(const ConfigReader& config) {
  TransformerConfig cohere = parse_transformer_sizes(
      config, {.norm_eps = "layer_norm_eps", .max_positions = 8192});
  cohere.model_type = kCohere2.model_type;
  cohere.norms = {.mixer = "input_layernorm", .mlp = "input_layernorm"};
  cohere.has_layer_norms = true;
  cohere.has_norm_biases = config.flag_or("layer_norm_bias", false);
  cohere.is_parallel = true;
  cohere.biases.qkv = config.flag_or("attention_bias", false);
  cohere.biases.o = cohere.biases.qkv;
  cohere.logit_scale =
      static_cast<float>(config.number_above_or(0, "logit_scale", 0.0625));
  refuse_flags(config, {"attention_bias", "rope_traditional"});
  require_activation(config, "hidden_act", "silu");
  set_layers(
      cohere,
      parse_rope(
          config,
          {.theta = 1e4,
           .max_positions = cohere.max_positions,
           .is_interleaved = true}),
      parse_patterned_windows(
          config,
          static_cast<int>(cohere.layers.size()),
          {.pattern = 4, .window = 4096}));
  for (LayerConfig& layer : cohere.layers) {
    if (layer.window == 0) {
      layer.rope.reset();
    }
  }
  check_layers(config, cohere);
  return cohere;
}

std::unique_ptr<Model> load_cohere2(
    const io::ModelDirectory& directory,
    kernels::Device& device) {
  return load_transformer(
      directory, device, "parse_cohere2_config", parse_cohere2_config);
}

} // namespace

const Family kCohere2{"cohere2", sanitize_transformer, load_cohere2};

} // namespace optiq::models
