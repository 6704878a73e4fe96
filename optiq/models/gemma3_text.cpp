#include <cmath>

#include <mlx/types/half_types.h>

#include "optiq/models/families_impl.h"
#include "optiq/models/transformer_impl.h"

namespace optiq::models {
namespace {

/** The RoPE of one layer kind: rope_parameters by kind, else flat keys. Sliding
 * layers are not scaled. */
RopeConfig parse_kind_rope(
    const ConfigReader& config,
    bool is_sliding,
    int max_positions) {
  if (const auto rope = parse_rope_of_kind(
          config, is_sliding, {.max_positions = max_positions})) {
    return *rope;
  }
  if (is_sliding) {
    return {.theta = config.number_above_or(1, "rope_local_base_freq", 1e4)};
  }
  return parse_rope(config, {.theta = 1e6, .max_positions = max_positions});
}

/** Gemma 3's text model. */
TransformerConfig parse_gemma3_text_config(const ConfigReader& config) {
  TransformerConfig gemma = parse_transformer_sizes(config);
  gemma.model_type = kGemma3Text.model_type;
  config.bounded("head_dim", kMaxHeadDim); // present: not H / heads
  gemma.scores.scale = static_cast<float>(
      1 / std::sqrt(config.number_above(0, "query_pre_attn_scalar")));
  // Trained with the factor in bfloat16.
  gemma.embedding_scale = static_cast<float>(mx::bfloat16_t(
      static_cast<float>(std::sqrt(static_cast<double>(gemma.hidden_size)))));
  gemma.activation = kernels::Activation::GeluTanh;
  gemma.qk_norm = QkNorm::Head;
  gemma.norms = kSandwichNorms;
  gemma.adds_one_to_norms = true;
  refuse_flags(config);
  require_activation(config, "hidden_activation", "gelu_pytorch_tanh");
  for (const char* key :
       {"attn_logit_softcapping", "final_logit_softcapping"}) {
    config.require(
        config.find(key) == nullptr,
        ErrorKind::Unsupported,
        std::string(key) + ": no published model of this family has it");
  }
  config.require(
      !config.flag_or("use_bidirectional_attention", false),
      ErrorKind::Unsupported,
      "use_bidirectional_attention true: not a language model");
  const auto windows = parse_patterned_windows(
      config, static_cast<int>(gemma.layers.size()), {});
  for (std::size_t i = 0; i < windows.size(); ++i) {
    gemma.layers[i].rope =
        parse_kind_rope(config, windows[i] > 0, gemma.max_positions);
    gemma.layers[i].window = windows[i];
  }
  check_layers(config, gemma);
  return gemma;
}

std::unique_ptr<Model> load_gemma3_text(
    const io::ModelDirectory& directory,
    kernels::Device& device) {
  return load_transformer(
      directory, device, "parse_gemma3_text_config", parse_gemma3_text_config);
}

} // namespace

const Family kGemma3Text{"gemma3_text", sanitize_transformer, load_gemma3_text};

} // namespace optiq::models
