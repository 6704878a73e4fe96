#pragma once

#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "optiq/models/model.h"
#include "optiq/models/weights.h"
#include "optiq/nn/attention.h"
#include "optiq/nn/gated_delta_net.h"
#include "optiq/nn/mlp.h"

namespace optiq::models {

/** One decoder block: h = x + mixer(norm(x)), then h + mlp(norm(h)). Gemma
 * normalizes what mixer and MLP return, too. */
struct DecoderLayer {
  mx::array mixer_norm; // [hidden]
  std::variant<nn::Attention, nn::GatedDeltaNet> mixer;
  std::optional<mx::array> mixer_out_norm; // [hidden]
  mx::array mlp_norm; // [hidden]
  nn::Mlp mlp;
  std::optional<mx::array> mlp_out_norm; // [hidden]
};

/** What a decoder-only model is made of. */
struct DecoderParts {
  ModelInfo info;
  float norm_eps = 0.f;
  nn::Linear embeddings; // [vocab, hidden]
  float embedding_scale = 1.f;
  std::vector<DecoderLayer> layers;
  mx::array final_norm; // [hidden]
  std::optional<nn::Linear> head; // [vocab, hidden]; none when tied
};

/** The model that runs the parts; the families differ only in how they load
 * them. */
std::unique_ptr<Model> make_decoder(DecoderParts parts);

/** gate_proj, up_proj and down_proj under `prefix`. */
nn::Mlp load_mlp(
    WeightLoader& weights,
    const std::string& prefix,
    int hidden,
    int intermediate);

} // namespace optiq::models
