#include <cmath>

#include "optiq/models/families_impl.h"
#include "optiq/models/transformer_impl.h"

namespace optiq::models {
namespace {

/** The class default of the references where the key is missing; 0 for null. */
float parse_softcap(
    const ConfigReader& config,
    const char* key,
    double fallback) {
  return static_cast<float>(config.number_above_or(
      0, key, config.json().contains(key) ? 0 : fallback));
}

/** Gemma 2. Its odd layers slide as in transformers; mlx-lm lets all layers see
 * everything, which is the same up to sliding_window tokens. */
TransformerConfig parse_gemma2_config(const ConfigReader& config) {
  TransformerConfig gemma =
      parse_transformer_sizes(config, {.max_positions = 8192});
  gemma.model_type = kGemma2.model_type;
  config.bounded("head_dim", kMaxHeadDim); // present: not H / heads
  gemma.scores = {
      .scale = static_cast<float>(
          1 / std::sqrt(config.number_above(0, "query_pre_attn_scalar"))),
      .softcap = parse_softcap(config, "attn_logit_softcapping", 50)};
  gemma.logit_softcap = parse_softcap(config, "final_logit_softcapping", 30);
  gemma.embedding_scale = std::sqrt(static_cast<float>(gemma.hidden_size));
  gemma.activation = kernels::Activation::GeluTanh;
  gemma.norms = kSandwichNorms;
  gemma.adds_one_to_norms = true;
  refuse_flags(config, {"rope_traditional"});
  require_activation(config, "hidden_activation", "gelu_pytorch_tanh");
  set_layers(
      gemma,
      parse_rope(
          config,
          {.theta = 1e4,
           .max_positions = gemma.max_positions,
           .is_interleaved = config.flag_or("rope_traditional", false)}),
      parse_patterned_windows(
          config,
          static_cast<int>(gemma.layers.size()),
          {.pattern = 2, .window = 4096}));
  check_layers(config, gemma);
  return gemma;
}

std::unique_ptr<Model> load_gemma2(
    const io::ModelDirectory& directory,
    kernels::Device& device) {
  return load_transformer(
      directory, device, "parse_gemma2_config", parse_gemma2_config);
}

} // namespace

const Family kGemma2{"gemma2", sanitize_transformer, load_gemma2};

} // namespace optiq::models
