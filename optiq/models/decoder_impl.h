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

/** What a block of Gemma 4 does with its per-layer input i:
 * h + norm(projection(gelu(gate(h)) * i)). */
struct LayerInput {
  nn::Linear gate; // [P, hidden]
  nn::Linear projection; // [hidden, P]
  mx::array norm; // [hidden]
};

/** Where the per-layer inputs come from: an embedding of the token and a
 * projection of the hidden state before the first layer. */
struct LayerInputSource {
  nn::Linear embeddings; // [vocab, n_layers * P]
  nn::Linear projection; // [n_layers * P, hidden]
  mx::array norm; // [P]
};

/** One decoder block: h = x + mixer(norm(x)), then h + mlp(norm(h)). Gemma
 * normalizes what mixer and MLP return, too. */
struct DecoderLayer {
  mx::array mixer_norm; // [hidden]
  std::variant<nn::Attention, nn::GatedDeltaNet> mixer;
  std::optional<mx::array> mixer_out_norm; // [hidden]
  mx::array mlp_norm; // [hidden]
  nn::Mlp mlp;
  std::optional<mx::array> mlp_out_norm; // [hidden]
  std::optional<LayerInput> input;
  float scale = 1.f; // of what the block returns
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
  float logit_softcap = 0.f; // 0: none
  std::optional<LayerInputSource> layer_inputs;
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
