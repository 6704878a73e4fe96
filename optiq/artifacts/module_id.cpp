#include "optiq/artifacts/module_id.h"

#include <algorithm>
#include <charconv>
#include <iterator>

namespace optiq::artifacts {
namespace {

constexpr std::string_view kLayers = "layers.";

struct Row {
  std::string_view part;
  ModuleRole role;
  ModuleKind kind;
};

using Kind = ModuleKind;
using Role = ModuleRole;

// In the order in which a layer uses them; last what is outside of layers.
constexpr Row kRows[] = {
    {"self_attn.qkv_proj", Role::QueryKeyValue, Kind::Attention},
    {"self_attn.q_proj", Role::Query, Kind::Attention},
    {"self_attn.k_proj", Role::Key, Kind::Attention},
    {"self_attn.v_proj", Role::Value, Kind::Attention},
    {"self_attn.o_proj", Role::AttentionOutput, Kind::Attention},
    {"self_attn.q_norm", Role::QueryNorm, Kind::Norm},
    {"self_attn.k_norm", Role::KeyNorm, Kind::Norm},
    {"linear_attn.in_proj_qkv", Role::DeltaQueryKeyValue, Kind::DeltaNet},
    {"linear_attn.in_proj_z", Role::DeltaGate, Kind::DeltaNet},
    {"linear_attn.in_proj_b", Role::DeltaBeta, Kind::DeltaNet},
    {"linear_attn.in_proj_a", Role::DeltaDecay, Kind::DeltaNet},
    {"linear_attn.out_proj", Role::DeltaOutput, Kind::DeltaNet},
    {"linear_attn.conv1d", Role::DeltaConvolution, Kind::Parameter},
    {"linear_attn.A_log", Role::DeltaLogDecay, Kind::Parameter},
    {"linear_attn.dt_bias", Role::DeltaDecayBias, Kind::Parameter},
    {"linear_attn.norm", Role::DeltaNorm, Kind::Norm},
    {"mlp.gate_up_proj", Role::GateUp, Kind::Mlp},
    {"mlp.gate_proj", Role::Gate, Kind::Mlp},
    {"mlp.up_proj", Role::Up, Kind::Mlp},
    {"mlp.down_proj", Role::Down, Kind::Mlp},
    {"mlp.gate", Role::Router, Kind::Router},
    {"mlp.switch_mlp.gate_proj", Role::ExpertGate, Kind::Expert},
    {"mlp.switch_mlp.up_proj", Role::ExpertUp, Kind::Expert},
    {"mlp.switch_mlp.down_proj", Role::ExpertDown, Kind::Expert},
    {"per_layer_input_gate", Role::LayerInputGate, Kind::LayerInput},
    {"per_layer_projection", Role::LayerInputOutput, Kind::LayerInput},
    {"post_per_layer_input_norm", Role::Norm, Kind::Norm},
    {"input_layernorm", Role::Norm, Kind::Norm},
    {"post_self_attn_layernorm", Role::Norm, Kind::Norm},
    {"post_attention_layernorm", Role::Norm, Kind::Norm},
    {"pre_feedforward_layernorm", Role::Norm, Kind::Norm},
    {"post_feedforward_layernorm", Role::Norm, Kind::Norm},
    {"post_mlp_layernorm", Role::Norm, Kind::Norm},
    {"embed_tokens", Role::Embedding, Kind::Embedding},
    {"embed_tokens_per_layer", Role::LayerInputEmbedding, Kind::Embedding},
    {"per_layer_model_projection",
     Role::LayerInputProjection,
     Kind::LayerInput},
    {"per_layer_projection_norm", Role::LayerInputNorm, Kind::Norm},
    {"norm", Role::Norm, Kind::Norm},
    {"lm_head", Role::Head, Kind::Head},
};

/** Position of the first row that fits; behind all of them without one. */
template <typename F>
std::size_t rank_of(const F& fits) {
  return std::find_if(std::begin(kRows), std::end(kRows), fits) -
      std::begin(kRows);
}

ModuleRole role_of(std::string_view part) {
  const std::size_t rank =
      rank_of([&](const Row& row) { return row.part == part; });
  return rank == std::size(kRows) ? ModuleRole::Other : kRows[rank].role;
}

std::string_view behind_last_dot(std::string_view path) {
  return path.substr(path.rfind('.') + 1);
}

/** A layer's number, and where in the path its part begins. */
struct LayerPlace {
  int layer = -1; // none
  std::size_t part = 0;
};

LayerPlace find_layer(std::string_view path) {
  for (std::size_t at = path.find(kLayers); at != std::string_view::npos;
       at = path.find(kLayers, at + 1)) {
    const char* begin = path.data() + at + kLayers.size();
    const char* end = path.data() + path.size();
    int layer = 0;
    const auto [next, error] = std::from_chars(begin, end, layer);
    const bool starts_word = at == 0 || path[at - 1] == '.';
    if (starts_word && error == std::errc() && layer >= 0 && next != end &&
        *next == '.') {
      return {layer, static_cast<std::size_t>(next + 1 - path.data())};
    }
  }
  return {};
}

} // namespace

ModuleKind kind_of(ModuleRole role) {
  const std::size_t rank =
      rank_of([&](const Row& row) { return row.role == role; });
  return rank == std::size(kRows) ? ModuleKind::Other : kRows[rank].kind;
}

ModuleId module_id(std::string_view module) {
  const LayerPlace place = find_layer(module);
  const std::string_view part =
      place.layer < 0 ? behind_last_dot(module) : module.substr(place.part);
  return {place.layer, std::string(part), role_of(part)};
}

int layer_of(std::string_view path) {
  return find_layer(path).layer;
}

TensorName split_tensor_name(std::string_view tensor) {
  const std::string_view leaf = behind_last_dot(tensor);
  for (const std::string_view known : {"weight", "scales", "biases", "bias"}) {
    if (leaf == known && leaf.size() < tensor.size()) {
      return {
          std::string(tensor.substr(0, tensor.size() - leaf.size() - 1)),
          std::string(leaf)};
    }
  }
  return {std::string(tensor), ""};
}

ModuleId module_of(std::string_view tensor) {
  return module_id(split_tensor_name(tensor).module);
}

std::string short_name(const ModuleId& id) {
  return id.layer < 0
      ? id.part
      : std::string(kLayers) + std::to_string(id.layer) + "." + id.part;
}

std::string layer_path(int layer) {
  return "model." + std::string(kLayers) + std::to_string(layer);
}

std::string block_of(const std::string& part) {
  const std::size_t dot = part.rfind('.');
  return dot == std::string::npos ? "" : part.substr(0, dot);
}

std::string short_leaf(const std::string& part) {
  constexpr std::string_view kProjection = "_proj";
  std::string leaf(behind_last_dot(part));
  if (const auto at = leaf.find(kProjection); at != std::string::npos) {
    leaf.erase(at, kProjection.size());
  }
  return leaf;
}

std::size_t rank_of_block(const std::string& block) {
  return rank_of(
      [&](const Row& row) { return block_of(std::string(row.part)) == block; });
}

std::size_t rank_of_part(const std::string& part) {
  return rank_of([&](const Row& row) { return row.part == part; });
}

} // namespace optiq::artifacts
