#include "optiq/models/families_impl.h"
#include "optiq/models/transformer_impl.h"

namespace optiq::models {
namespace {

/** Phi-3, 3.5 and 4: Llama with q, k and v in one matrix, gate and up in
 * another. A sliding_window counts as in transformers; mlx-lm does not read
 * it. */
TransformerConfig parse_phi3_config(const ConfigReader& config) {
  TransformerConfig phi = parse_transformer_sizes(config);
  phi.model_type = kPhi3.model_type;
  phi.fuses_qkv = true;
  phi.fuses_gate_up = true;
  refuse_flags(config, {"rope_traditional"});
  require_activation(config, "hidden_act", "silu");
  const int window = config.bounded_or("sliding_window", kMaxPositions, 0);
  set_layers(
      phi,
      parse_rope(
          config,
          {.theta = 1e4,
           .max_positions = phi.max_positions,
           .rotary_share = 1,
           .is_interleaved = config.flag_or("rope_traditional", false)}),
      parse_windows(config, static_cast<int>(phi.layers.size()), window));
  check_layers(config, phi);
  return phi;
}

std::unique_ptr<Model> load_phi3(
    const io::ModelDirectory& directory,
    kernels::Device& device) {
  return load_transformer(
      directory, device, "parse_phi3_config", parse_phi3_config);
}

} // namespace

const Family kPhi3{"phi3", sanitize_transformer, load_phi3};

} // namespace optiq::models
