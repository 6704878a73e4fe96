#include "optiq/io/gguf/config.h"

#include <algorithm>
#include <charconv>

#include "optiq/io/gguf/architecture_impl.h"
#include "optiq/io/gguf/special_tokens_impl.h"

namespace optiq::io {
namespace {

using artifacts::Json;

constexpr const char* kHead = "output.weight";
constexpr const char* kEmbedding = "token_embd.weight";

/** "model.layers.3.mlp.up_proj.weight" of "blk.3.ffn_up.weight". */
std::optional<std::string> layer_tensor_name(
    const GgufFile& file,
    const GgufArchitecture& architecture,
    std::string_view name) {
  constexpr std::string_view kBlock = "blk.";
  if (!name.starts_with(kBlock)) {
    return std::nullopt;
  }
  name.remove_prefix(kBlock.size());
  int layer = -1;
  const auto [end, error] =
      std::from_chars(name.data(), name.data() + name.size(), layer);
  const std::string number(name.data(), end);
  name.remove_prefix(number.size());
  if (error != std::errc() || layer < 0 || layer >= architecture.n_layers ||
      std::to_string(layer) != number || !name.starts_with('.')) {
    return std::nullopt;
  }
  name.remove_prefix(1);
  const std::size_t dot = std::min(name.find('.'), name.size());
  const std::string_view leaf = name.substr(dot);
  const char* module =
      find_module(find_architecture(file), name.substr(0, dot));
  if (module == nullptr || (leaf != ".weight" && leaf != ".bias")) {
    return std::nullopt;
  }
  return fmt::format("model.layers.{}.{}{}", layer, module, leaf);
}

} // namespace

GgufArchitecture gguf_architecture(const GgufFile& file) {
  const ArchitectureRow& row = find_architecture(file);
  if (const auto n = file.integer("split.count"); n && *n > 1) {
    reject_config(
        ErrorKind::Unsupported,
        file,
        "key 'split.count': found one of {} parts, expected a whole model. "
        "Merge the parts first",
        *n);
  }
  const GgufKeys keys(file, row.name);
  GgufArchitecture result{
      .name = row.name,
      .n_layers = keys.integer("block_count", kMaxGgufLayers),
      .n_heads = keys.integer("attention.head_count", kMaxGgufHeads),
      .interleaved_heads = row.interleaved_heads,
      .shifted_norms = row.shifted_norms};
  result.n_kv_heads =
      keys.integer_or("attention.head_count_kv", result.n_heads, kMaxGgufHeads);
  const int hidden = keys.integer("embedding_length", kMaxGgufWidth);
  result.head_dim = keys.integer_or(
      "attention.key_length",
      std::max(1, hidden / result.n_heads),
      kMaxGgufWidth);
  const auto require_even = [&](const char* key, bool may_be_less) {
    const int found = keys.integer_or(key, result.head_dim, kMaxGgufWidth);
    if (found > result.head_dim || found % 2 != 0 ||
        (found != result.head_dim && !may_be_less)) {
      reject_config(
          ErrorKind::Unsupported,
          file,
          "key '{}': found {}, expected {} {}, even",
          keys.name_of(key),
          found,
          may_be_less ? "at most head_dim" : "head_dim",
          result.head_dim);
    }
    return found;
  };
  require_even("attention.value_length", false);
  result.rotary_dim =
      require_even("rope.dimension_count", row.turns_parts_of_heads);
  return result;
}

Json gguf_config(const GgufFile& file, const GgufArchitecture& architecture) {
  const ArchitectureRow& row = find_architecture(file);
  const GgufKeys keys(file, row.name);
  const GgufTensor* embedding = keys.find_tensor(kEmbedding);
  if (embedding == nullptr || embedding->shape.size() != 2) {
    reject_config(
        ErrorKind::Corrupt,
        file,
        "found no tensor '{}' of two axes, expected the embeddings",
        kEmbedding);
  }
  const double rope_theta = keys.positive_or("rope.freq_base", 10000);
  Json config = {
      {"architectures", Json::array({row.class_name})},
      {"model_type", row.model_type},
      {"hidden_size", keys.integer("embedding_length", kMaxGgufWidth)},
      {"num_hidden_layers", architecture.n_layers},
      {"intermediate_size", keys.integer("feed_forward_length", kMaxGgufWidth)},
      {"num_attention_heads", architecture.n_heads},
      {"num_key_value_heads", architecture.n_kv_heads},
      {"head_dim", architecture.head_dim},
      {"vocab_size",
       checked_integer(
           file,
           kEmbedding,
           static_cast<std::uint64_t>(embedding->shape[0]),
           kMaxGgufVocabulary)},
      {row.has_layer_norms ? "layer_norm_eps" : "rms_norm_eps",
       keys.positive(
           row.has_layer_norms ? "attention.layer_norm_epsilon"
                               : "attention.layer_norm_rms_epsilon")},
      {"rope_theta", rope_theta},
      {"max_position_embeddings",
       keys.integer("context_length", kMaxGgufPositions)},
      {"tie_word_embeddings", keys.find_tensor(kHead) == nullptr}};
  if (row.turns_parts_of_heads) {
    config["partial_rotary_factor"] =
        static_cast<double>(architecture.rotary_dim) / architecture.head_dim;
  }
  const Json scaling =
      gguf_rope_scaling(keys, rope_theta, architecture.rotary_dim);
  if (!scaling.is_null()) {
    config["rope_scaling"] = scaling;
  }
  if (row.add_keys != nullptr) {
    row.add_keys(keys, config);
  }
  add_token_ids(file, config);
  return config;
}

std::optional<std::string> hf_tensor_name(
    const GgufFile& file,
    const GgufArchitecture& architecture,
    const std::string& name) {
  if (is_rope_tensor(name)) {
    return std::nullopt;
  }
  if (name == kEmbedding) {
    return "model.embed_tokens.weight";
  }
  if (name == "output_norm.weight") {
    return "model.norm.weight";
  }
  if (name == kHead) {
    return "lm_head.weight";
  }
  if (auto layer = layer_tensor_name(file, architecture, name)) {
    return layer;
  }
  fail(
      ErrorKind::Unsupported,
      "[hf_tensor_name] {}: tensor '{}' has no place in a {} model of {} "
      "layers, expected the tensors of this architecture. Is it a variant?",
      file.path().string(),
      name,
      architecture.name,
      architecture.n_layers);
}

} // namespace optiq::io
