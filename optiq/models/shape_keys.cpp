#include <array>
#include <string_view>

#include "optiq/models/shape_keys_impl.h"

namespace optiq::models {
namespace {

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

/** A tensor whose module path ends so, and what its axes come from. */
struct Row {
  std::string_view suffix;
  std::array<const char*, 2> axes;
};

// The first that fits.
constexpr Row kRows[] = {
    {"embed_tokens", {kVocab, kHidden}},
    {"lm_head", {kVocab, kHidden}},
    {"q_proj", {kHeads, kHidden}},
    {"k_proj", {kKvHeads, kHidden}},
    {"v_proj", {kKvHeads, kHidden}},
    {"qkv_proj",
     {"num_attention_heads, num_key_value_heads, head_dim", kHidden}},
    {"o_proj", {kHidden, kHeads}},
    {"gate_proj", {kInner, kHidden}},
    {"up_proj", {kInner, kHidden}},
    {"gate_up_proj", {kInner, kHidden}},
    {"down_proj", {kHidden, kInner}},
    {"q_norm", {"head_dim", nullptr}},
    {"k_norm", {"head_dim", nullptr}},
    {"in_proj_qkv", {kDeltaChannels, kHidden}},
    {"conv1d", {kDeltaChannels, "linear_conv_kernel_dim"}},
    {"in_proj_z", {kDeltaValues, kHidden}},
    {"in_proj_a", {"linear_num_value_heads", kHidden}},
    {"in_proj_b", {"linear_num_value_heads", kHidden}},
    {"A_log", {"linear_num_value_heads", nullptr}},
    {"dt_bias", {"linear_num_value_heads", nullptr}},
    {"linear_attn.norm", {"linear_value_head_dim", nullptr}},
    {"linear_attn.out_proj", {kHidden, kDeltaValues}},
    {"embed_tokens_per_layer",
     {"vocab_size_per_layer_input",
      "num_hidden_layers, hidden_size_per_layer_input"}},
    {"per_layer_model_projection",
     {"num_hidden_layers, hidden_size_per_layer_input", kHidden}},
    {"per_layer_projection_norm", {kLayerInput, nullptr}},
    {"per_layer_input_gate", {kLayerInput, kHidden}},
    {"per_layer_projection", {kHidden, kLayerInput}},
    {"norm", {kHidden, nullptr}},
};

std::string_view module_of(std::string_view tensor) {
  for (const std::string_view part :
       {".weight", ".scales", ".biases", ".bias"}) {
    if (tensor.ends_with(part)) {
      return tensor.substr(0, tensor.size() - part.size());
    }
  }
  return tensor;
}

/** Whether a path ends in whole components that are the suffix; a norm may
 * have a longer name. */
bool ends_in(std::string_view path, std::string_view suffix) {
  if (!path.ends_with(suffix)) {
    return false;
  }
  return path.size() == suffix.size() ||
      path[path.size() - suffix.size() - 1] == '.' || suffix == "norm";
}

} // namespace

std::string config_keys_of(const std::string& tensor, std::size_t axis) {
  const std::string_view module = module_of(tensor);
  for (const Row& row : kRows) {
    if (ends_in(module, row.suffix)) {
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
