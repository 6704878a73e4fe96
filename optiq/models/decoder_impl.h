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
  kernels::Norm norm; // [hidden]
};

/** Where the per-layer inputs come from: an embedding of the token and a
 * projection of the hidden state before the first layer. */
struct LayerInputSource {
  nn::Linear embeddings; // [vocab, n_layers * P]
  nn::Linear projection; // [n_layers * P, hidden]
  kernels::Norm norm; // [P]
};

/** One decoder block: h = x + s out_norm(mixer(norm(x))), then h + s
 * out_norm(mlp(norm(h))), with those of the norms [hidden] that there are. */
struct DecoderLayer {
  std::optional<kernels::Norm> mixer_norm;
  std::variant<nn::Attention, nn::GatedDeltaNet> mixer;
  std::optional<kernels::Norm> mixer_out_norm;
  std::optional<kernels::Norm> mlp_norm;
  nn::Mlp mlp;
  std::optional<kernels::Norm> mlp_out_norm;
  bool is_parallel = false; // the MLP reads x as the mixer does, not h
  float residual_scale = 1.f; // s
  std::optional<LayerInput> input;
  float scale = 1.f; // of what the block returns
};

/** What a decoder-only model is made of. */
struct DecoderParts {
  kernels::Device* device = nullptr; // on which all of it lies
  ModelInfo info;
  nn::Linear embeddings; // [vocab, hidden]
  float embedding_scale = 1.f;
  std::vector<DecoderLayer> layers;
  kernels::Norm final_norm; // [hidden]
  std::optional<nn::Linear> head; // [vocab, hidden]; none when tied
  float logit_softcap = 0.f; // 0: none
  std::optional<LayerInputSource> layer_inputs;
};

/** The model that runs the parts; the families differ only in how they load
 * them. */
std::unique_ptr<Model> make_decoder(DecoderParts parts);

} // namespace optiq::models
