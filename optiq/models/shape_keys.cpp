#include <array>

#include "optiq/artifacts/module_id.h"
#include "optiq/models/shape_keys_impl.h"

namespace optiq::models {
namespace {

using artifacts::ModuleRole;

constexpr const char* kHidden = "hidden_size";
constexpr const char* kHeads = "num_attention_heads, head_dim";
constexpr const char* kKvHeads = "num_key_value_heads, head_dim";
constexpr const char* kInner = "intermediate_size";
constexpr const char* kVocab = "vocab_size";
constexpr const char* kDeltaValues =
    "linear_num_value_heads, linear_value_head_dim";
constexpr const char* kDeltaChannels =
    "linear_num_key_heads, linear_key_head_dim, linear_num_value_heads, "
    "linear_value_head_dim";
constexpr const char* kLayerInput = "hidden_size_per_layer_input";

/** What the axes of a module's tensors come from, by what it does. */
struct Row {
  ModuleRole role;
  std::array<const char*, 2> axes;
};

constexpr Row kRows[] = {
    {ModuleRole::Embedding, {kVocab, kHidden}},
    {ModuleRole::Head, {kVocab, kHidden}},
    {ModuleRole::Query, {kHeads, kHidden}},
    {ModuleRole::Key, {kKvHeads, kHidden}},
    {ModuleRole::Value, {kKvHeads, kHidden}},
    {ModuleRole::QueryKeyValue,
     {"num_attention_heads, num_key_value_heads, head_dim", kHidden}},
    {ModuleRole::AttentionOutput, {kHidden, kHeads}},
    {ModuleRole::Gate, {kInner, kHidden}},
    {ModuleRole::Up, {kInner, kHidden}},
    {ModuleRole::GateUp, {kInner, kHidden}},
    {ModuleRole::Down, {kHidden, kInner}},
    {ModuleRole::QueryNorm, {"head_dim", nullptr}},
    {ModuleRole::KeyNorm, {"head_dim", nullptr}},
    {ModuleRole::DeltaQueryKeyValue, {kDeltaChannels, kHidden}},
    {ModuleRole::DeltaConvolution, {kDeltaChannels, "linear_conv_kernel_dim"}},
    {ModuleRole::DeltaGate, {kDeltaValues, kHidden}},
    {ModuleRole::DeltaDecay, {"linear_num_value_heads", kHidden}},
    {ModuleRole::DeltaBeta, {"linear_num_value_heads", kHidden}},
    {ModuleRole::DeltaLogDecay, {"linear_num_value_heads", nullptr}},
    {ModuleRole::DeltaDecayBias, {"linear_num_value_heads", nullptr}},
    {ModuleRole::DeltaNorm, {"linear_value_head_dim", nullptr}},
    {ModuleRole::DeltaOutput, {kHidden, kDeltaValues}},
    {ModuleRole::LayerInputEmbedding,
     {"vocab_size_per_layer_input",
      "num_hidden_layers, hidden_size_per_layer_input"}},
    {ModuleRole::LayerInputProjection,
     {"num_hidden_layers, hidden_size_per_layer_input", kHidden}},
    {ModuleRole::LayerInputNorm, {kLayerInput, nullptr}},
    {ModuleRole::LayerInputGate, {kLayerInput, kHidden}},
    {ModuleRole::LayerInputOutput, {kHidden, kLayerInput}},
    {ModuleRole::Norm, {kHidden, nullptr}},
};

} // namespace

std::string config_keys_of(const std::string& tensor, std::size_t axis) {
  const ModuleRole role = artifacts::module_of(tensor).role;
  for (const Row& row : kRows) {
    if (row.role == role) {
      const char* keys = axis < row.axes.size() ? row.axes[axis] : nullptr;
      return keys == nullptr ? "" : keys;
    }
  }
  return "";
}

std::string config_keys_of(
    const std::string& tensor,
    const mlx::core::Shape& found,
    const mlx::core::Shape& expected) {
  std::string all;
  for (std::size_t axis = 0;
       axis < found.size() && found.size() == expected.size();
       ++axis) {
    const std::string keys = config_keys_of(tensor, axis);
    if (found[axis] != expected[axis] && all.find(keys) == std::string::npos) {
      all += (all.empty() ? "" : ", ") + keys;
    }
  }
  return all;
}

} // namespace optiq::models
