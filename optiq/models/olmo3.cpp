#include "optiq/models/families_impl.h"
#include "optiq/models/transformer_impl.h"

namespace optiq::models {
namespace {

RopeConfig parse_kind_rope(
    const ConfigReader& config,
    bool is_sliding,
    int max_positions) {
  const RopeRules rules{.max_positions = max_positions};
  if (const auto rope = parse_rope_of_kind(config, is_sliding, rules)) {
    return *rope;
  }
  RopeConfig rope = parse_rope(config, rules);
  if (is_sliding) {
    rope.scaling = {};
  }
  return rope;
}

/** OLMo 3: OLMo 2 with sliding layers, whose RoPE is not scaled. */
TransformerConfig parse_olmo3_config(const ConfigReader& config) {
  TransformerConfig olmo = parse_transformer_sizes(config);
  olmo.model_type = kOlmo3.model_type;
  olmo.norms = kPostNorms;
  olmo.qk_norm = QkNorm::Row;
  olmo.biases.qkv = config.flag_or("attention_bias", false);
  olmo.biases.o = olmo.biases.qkv;
  refuse_flags(config, {"attention_bias"});
  require_activation(config, "hidden_act", "silu");
  const int max_positions = olmo.max_positions;
  set_layers(
      olmo,
      parse_kind_rope(config, false, max_positions),
      parse_patterned_windows(
          config, static_cast<int>(olmo.layers.size()), {.pattern = 4}));
  for (LayerConfig& layer : olmo.layers) {
    if (layer.window > 0) {
      layer.rope = parse_kind_rope(config, true, max_positions);
    }
  }
  check_layers(config, olmo);
  return olmo;
}

std::unique_ptr<Model> load_olmo3(
    const io::ModelDirectory& directory,
    kernels::Device& device) {
  return load_transformer(
      directory, device, "parse_olmo3_config", parse_olmo3_config);
}

} // namespace

const Family kOlmo3{"olmo3", sanitize_transformer, load_olmo3};

} // namespace optiq::models
