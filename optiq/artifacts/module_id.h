#pragma once

#include <cstddef>
#include <string>
#include <string_view>

/**
 * The one reader of MLX module paths:
 *
 *   [prefix.]layers.<layer>.<part>      "model.layers.3.mlp.up_proj"
 *   [prefix.]<part>                     "language_model.lm_head"
 *
 * Whoever wants to know of which layer a matrix is, or what it does there, asks
 * its ModuleId; a part that a new family brings is a row of the table in
 * module_id.cpp.
 */
namespace optiq::artifacts {

/** What a part of a decoder-only model does. */
enum class ModuleRole {
  Other, // not in the table
  // Attention
  QueryKeyValue,
  Query,
  Key,
  Value,
  AttentionOutput,
  QueryNorm,
  KeyNorm,
  // Gated delta net
  DeltaQueryKeyValue,
  DeltaGate,
  DeltaBeta,
  DeltaDecay,
  DeltaOutput,
  DeltaConvolution,
  DeltaLogDecay,
  DeltaDecayBias,
  DeltaNorm,
  // MLP
  GateUp,
  Gate,
  Up,
  Down,
  Router,
  ExpertGate,
  ExpertUp,
  ExpertDown,
  // Per-layer inputs
  LayerInputGate,
  LayerInputOutput,
  LayerInputEmbedding,
  LayerInputProjection,
  LayerInputNorm,
  // Around them
  Norm,
  Embedding,
  Head,
};

/** What roles have in common. */
enum class ModuleKind {
  Other,
  Attention, // its projections
  DeltaNet, // its projections
  Mlp,
  Router,
  Expert,
  LayerInput,
  Embedding,
  Head,
  Norm,
  Parameter, // of a mixer, neither a projection nor a norm
};

ModuleKind kind_of(ModuleRole role);

/** Where a module sits and what it does there; the same for all prefixes. */
struct ModuleId {
  bool operator==(const ModuleId&) const = default;

  int layer = -1; // of the decoder; -1: outside of all of them
  std::string part; // "mlp.up_proj", "lm_head"
  ModuleRole role = ModuleRole::Other;
};

ModuleId module_id(std::string_view module);

/** The layer of a module or of a tensor, by its path; or -1. */
int layer_of(std::string_view path);

/** "a.b.weight" is the "weight" of "a.b"; what is no leaf of a matrix or a norm
 * (weight, scales, biases, bias) has the whole name as its module. */
struct TensorName {
  std::string module;
  std::string leaf;
};
TensorName split_tensor_name(std::string_view tensor);

/** The id of a tensor's module. */
ModuleId module_of(std::string_view tensor);

/** "layers.3.mlp.up_proj", "lm_head": the path without its prefix. */
std::string short_name(const ModuleId& id);

/** "model.layers.3", as K/V files name a layer. */
std::string layer_path(int layer);

/** What a part is in: "mlp" of "mlp.up_proj", "" of "embed_tokens". */
std::string block_of(const std::string& part);

/** Its own name, for a narrow column: "up" of "mlp.up_proj", "in_qkv" of
 * "linear_attn.in_proj_qkv". */
std::string short_leaf(const std::string& part);

/** Places in the order in which a layer uses its blocks and their parts, which
 * is how people read them (files have them in the order of their names). What
 * the table does not have comes last. */
std::size_t rank_of_block(const std::string& block);
std::size_t rank_of_part(const std::string& part);

} // namespace optiq::artifacts
