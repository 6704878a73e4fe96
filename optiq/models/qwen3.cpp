#include "optiq/models/families_impl.h"
#include "optiq/models/transformer_impl.h"

namespace optiq::models {
namespace {

/** Qwen3, dense: Llama with a norm on every head of q and k. */
TransformerConfig parse_qwen3_config(const ConfigReader& config) {
  TransformerConfig qwen = parse_transformer_sizes(config);
  qwen.model_type = kQwen3.model_type;
  config.bounded("head_dim", kMaxHeadDim); // present: not H / heads
  qwen.qk_norm = QkNorm::Head;
  refuse_flags(config);
  require_activation(config, "hidden_act", "silu");
  set_layers(
      qwen,
      parse_rope(config, {.max_positions = qwen.max_positions}),
      parse_late_windows(config, static_cast<int>(qwen.layers.size())));
  check_layers(config, qwen);
  return qwen;
}

std::unique_ptr<Model> load_qwen3(
    const io::ModelDirectory& directory,
    kernels::Device& device) {
  return load_transformer(
      directory, device, "parse_qwen3_config", parse_qwen3_config);
}

} // namespace

const Family kQwen3{"qwen3", sanitize_transformer, load_qwen3};

} // namespace optiq::models
