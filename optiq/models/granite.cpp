#include "optiq/models/families_impl.h"
#include "optiq/models/transformer_impl.h"

namespace optiq::models {
namespace {

/** Granite 3: Llama whose parts are scaled by constants. */
TransformerConfig parse_granite_config(const ConfigReader& config) {
  TransformerConfig granite = parse_llama_config(config);
  granite.model_type = kGranite.model_type;
  refuse_flags(config, {"attention_bias", "mlp_bias"});
  const auto factor = [&](const char* key) {
    return static_cast<float>(config.number_above(0, key));
  };
  granite.scores.scale = factor("attention_multiplier");
  granite.embedding_scale = factor("embedding_multiplier");
  granite.residual_scale = factor("residual_multiplier");
  granite.logit_scale = 1.f / factor("logits_scaling");
  return granite;
}

std::unique_ptr<Model> load_granite(
    const io::ModelDirectory& directory,
    kernels::Device& device) {
  return load_transformer(
      directory, device, "parse_granite_config", parse_granite_config);
}

} // namespace

const Family kGranite{"granite", sanitize_transformer, load_granite};

} // namespace optiq::models
