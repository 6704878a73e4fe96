#include "optiq/models/families_impl.h"
#include "optiq/models/transformer_impl.h"

namespace optiq::models {
namespace {

/** Qwen2 and 2.5: Llama with biases on q, k and v. */
TransformerConfig parse_qwen2_config(const ConfigReader& config) {
  TransformerConfig qwen = parse_transformer_sizes(config);
  qwen.model_type = kQwen2.model_type;
  qwen.biases.qkv = true;
  refuse_flags(config, {"attention_bias", "rope_traditional"});
  require_activation(config, "hidden_act", "silu");
  set_layers(
      qwen,
      parse_rope(
          config,
          {.theta = 1e6,
           .max_positions = qwen.max_positions,
           .is_interleaved = config.flag_or("rope_traditional", false)}),
      parse_late_windows(config, static_cast<int>(qwen.layers.size())));
  check_layers(config, qwen);
  return qwen;
}

std::unique_ptr<Model> load_qwen2(
    const io::ModelDirectory& directory,
    kernels::Device& device) {
  return load_transformer(
      directory, device, "parse_qwen2_config", parse_qwen2_config);
}

} // namespace

const Family kQwen2{"qwen2", sanitize_transformer, load_qwen2};

} // namespace optiq::models
