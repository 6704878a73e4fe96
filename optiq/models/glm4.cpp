#include <vector>

#include "optiq/models/families_impl.h"
#include "optiq/models/transformer_impl.h"

namespace optiq::models {
namespace {

/** GLM-4 0414: norms before and behind, RoPE in pairs of neighbours on half of
 * every head, gate and up in one matrix. */
TransformerConfig parse_glm4_config(const ConfigReader& config) {
  TransformerConfig glm = parse_transformer_sizes(config);
  glm.model_type = kGlm4.model_type;
  glm.norms = {
      .mixer = "input_layernorm",
      .mixer_out = "post_self_attn_layernorm",
      .mlp = "post_attention_layernorm",
      .mlp_out = "post_mlp_layernorm"};
  glm.fuses_gate_up = true;
  glm.biases.qkv = config.flag_or("attention_bias", false);
  refuse_flags(config, {"attention_bias", "rope_traditional"});
  require_activation(config, "hidden_act", "silu");
  set_layers(
      glm,
      parse_rope(
          config,
          {.theta = 1e4,
           .max_positions = glm.max_positions,
           .rotary_share = 0.5,
           .is_interleaved = config.flag_or("rope_traditional", true)}),
      std::vector<int>(glm.layers.size(), 0));
  check_layers(config, glm);
  return glm;
}

std::unique_ptr<Model> load_glm4(
    const io::ModelDirectory& directory,
    kernels::Device& device) {
  return load_transformer(
      directory, device, "parse_glm4_config", parse_glm4_config);
}

} // namespace

const Family kGlm4{"glm4", sanitize_transformer, load_glm4};

} // namespace optiq::models
