#include "optiq/models/families_impl.h"
#include "optiq/models/transformer_impl.h"

namespace optiq::models {
namespace {

/** Qwen3, dense: Llama with a norm on every head of q and k. */
TransformerConfig parse_qwen3_config(
    const artifacts::Json& json,
    const std::string& where) {
  const ConfigReader config(json, "parse_qwen3_config", where);
  TransformerConfig qwen = parse_transformer_sizes(config);
  qwen.model_type = kQwen3.model_type;
  config.bounded("head_dim", kMaxHeadDim); // present: not H / heads
  qwen.has_qk_norm = true;
  require_activation(config, "hidden_act", "silu");
  config.require(
      config.find("layer_types") != nullptr ||
          !config.flag_or("use_sliding_window", false),
      ErrorKind::Unsupported,
      "use_sliding_window without layer_types");
  const RopeConfig rope = parse_rope(config, std::nullopt);
  const auto windows =
      parse_windows(config, static_cast<int>(qwen.layers.size()), 0);
  for (std::size_t i = 0; i < windows.size(); ++i) {
    qwen.layers[i].rope = rope;
    qwen.layers[i].window = windows[i];
  }
  check_layers(config, qwen);
  return qwen;
}

std::unique_ptr<Model> load_qwen3(const io::ModelDirectory& directory) {
  return load_transformer(
      directory,
      parse_qwen3_config(
          directory.config(), (directory.path() / "config.json").string()));
}

} // namespace

const Family kQwen3{"qwen3", sanitize_transformer, load_qwen3};

} // namespace optiq::models
