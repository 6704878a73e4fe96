#include "optiq/io/gguf_config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <span>

#include "optiq/base/error.h"
#include "optiq/io/gguf_special_tokens_impl.h"

namespace optiq::io {
namespace {

using artifacts::Json;

constexpr std::uint64_t kMaxLayers = 1024;
constexpr std::uint64_t kMaxHeads = 1024;
constexpr std::uint64_t kMaxWidth = 1u << 20;
constexpr std::uint64_t kMaxVocabulary = 4u << 20;
constexpr const char* kRopeFactors = "rope_freqs.weight";
constexpr const char* kHead = "output.weight";
constexpr const char* kEmbedding = "token_embd.weight";
// Layers of Gemma 3 27B, whose attention alone is scaled by
// hidden_size / heads instead of head_dim (technical report, arXiv 2503.19786).
constexpr int kGemma27bLayers = 62;
constexpr int kGemmaSlidingPattern = 6; // every sixth layer attends to all
constexpr double kGemmaLocalRopeBase = 10000.0;

struct ArchitectureRow {
  const char* name;
  const char* model_type; // of Hugging Face
  const char* class_name;
  bool interleaved_heads;
  bool shifted_norms;
  bool sandwich_norms;
};

constexpr ArchitectureRow kArchitectures[] = {
    {"llama", "llama", "LlamaForCausalLM", true, false, false},
    {"qwen3", "qwen3", "Qwen3ForCausalLM", false, false, false},
    {"gemma3", "gemma3_text", "Gemma3ForCausalLM", false, true, true},
};

const ArchitectureRow* find_row(const std::string& name) {
  const auto* row = std::find_if(
      std::begin(kArchitectures), std::end(kArchitectures), [&](const auto& r) {
        return name == r.name;
      });
  return row == std::end(kArchitectures) ? nullptr : row;
}

template <typename... Args>
[[noreturn]] void reject(
    ErrorKind kind,
    const GgufFile& file,
    fmt::format_string<Args...> format,
    Args&&... args) {
  fail(
      kind,
      "[gguf_config] {}: {}",
      file.path().string(),
      fmt::format(format, std::forward<Args>(args)...));
}

/** An integer from 1 to `most`. */
int checked_integer(
    const GgufFile& file,
    const std::string& key,
    std::optional<std::uint64_t> value,
    std::uint64_t most) {
  if (!value || *value < 1 || *value > most) {
    reject(
        ErrorKind::Corrupt,
        file,
        "key '{}': found {}, expected an integer from 1 to {}",
        key,
        value ? std::to_string(*value) : "none",
        most);
  }
  return static_cast<int>(*value);
}

int required_integer(
    const GgufFile& file,
    const std::string& key,
    std::uint64_t most) {
  return checked_integer(file, key, file.integer(key), most);
}

int integer_or(
    const GgufFile& file,
    const std::string& key,
    int fallback,
    std::uint64_t most) {
  return file.has(key) ? required_integer(file, key, most) : fallback;
}

/** The decimal number that a float32 was rounded from: 1e-05, not
 * 9.999999747378752e-06. */
double shortest_decimal(double value) {
  char text[32];
  const auto end =
      std::to_chars(text, text + sizeof(text), static_cast<float>(value)).ptr;
  double decimal = 0;
  std::from_chars(text, end, decimal);
  return decimal;
}

double positive_number(
    const GgufFile& file,
    const std::string& key,
    std::optional<double> fallback) {
  const auto found = file.number(key);
  const double value = found ? shortest_decimal(*found) : fallback.value_or(0);
  if (!std::isfinite(value) || value <= 0) {
    reject(
        ErrorKind::Corrupt,
        file,
        "key '{}': found {}, expected a number above 0",
        key,
        found ? std::to_string(*found) : "none");
  }
  return value;
}

const GgufTensor* find_tensor(const GgufFile& file, const std::string& name) {
  const auto& tensors = file.tensors();
  const auto found = std::find_if(
      tensors.begin(), tensors.end(), [&](const GgufTensor& tensor) {
        return tensor.name == name;
      });
  return found == tensors.end() ? nullptr : &*found;
}

/** What Llama 3.x divides its frequencies by (docs/formats.md, GGUF): 1 at
 * short wavelengths, `factor` at long ones, a blend between. */
double llama3_divisor(double wavelength, double factor) {
  constexpr double kLow = 1; // low_freq_factor
  constexpr double kHigh = 4; // high_freq_factor
  constexpr double kOriginal = 8192; // original_max_position_embeddings
  if (wavelength < kOriginal / kHigh) {
    return 1;
  }
  if (wavelength > kOriginal / kLow) {
    return factor;
  }
  const double blend = (kOriginal / wavelength - kLow) / (kHigh - kLow);
  return 1 / ((1 - blend) / factor + blend);
}

/** The llama3 scaling whose divisors the file stores, recognized by its values:
 * the file does not store the numbers they were computed from. */
Json llama3_scaling(
    const GgufFile& file,
    const GgufTensor& tensor,
    double rope_theta,
    int head_dim) {
  const auto n = static_cast<std::size_t>(head_dim / 2);
  if (tensor.type != GgufType::F32 || tensor.nbytes != n * sizeof(float)) {
    reject(
        ErrorKind::Corrupt,
        file,
        "tensor '{}': found {} bytes of {}, expected {} numbers of F32",
        tensor.name,
        tensor.nbytes,
        name_of(tensor.type),
        n);
  }
  std::vector<float> divisors(n);
  std::memcpy(divisors.data(), file.bytes(tensor).data(), tensor.nbytes);
  const double factor = divisors.back();
  for (std::size_t i = 0; i < n; ++i) {
    const double wavelength = 2 * std::numbers::pi *
        std::pow(rope_theta, 2.0 * static_cast<double>(i) / head_dim);
    const double expected = llama3_divisor(wavelength, factor);
    // The converter computes in float32: a few units of 2^-24 in the frequency,
    // up to `factor` times as much where it is blended.
    constexpr double kTolerance = 1e-5;
    if (!(std::abs(divisors[i] - expected) <= kTolerance * expected * factor)) {
      reject(
          ErrorKind::Unsupported,
          file,
          "tensor '{}': divisor {} is {}, expected {} as Llama 3.x scales its "
          "frequencies (factor {}, 1, 4, 8192). Use the Hugging Face directory "
          "of this model instead",
          tensor.name,
          i,
          divisors[i],
          expected,
          factor);
    }
  }
  return {
      {"rope_type", "llama3"},
      {"factor", shortest_decimal(factor)},
      {"low_freq_factor", 1.0},
      {"high_freq_factor", 4.0},
      {"original_max_position_embeddings", 8192}};
}

/** config.json's rope_scaling: null without any. */
Json rope_scaling(
    const GgufFile& file,
    const GgufArchitecture& architecture,
    double rope_theta) {
  const std::string prefix = architecture.name + ".rope.scaling.";
  const std::string type = file.text(prefix + "type").value_or("none");
  const GgufTensor* divisors = find_tensor(file, kRopeFactors);
  if (divisors != nullptr && type == "none") {
    return llama3_scaling(file, *divisors, rope_theta, architecture.head_dim);
  }
  if (divisors == nullptr && type == "none") {
    return nullptr;
  }
  if (divisors == nullptr && type == "linear") {
    return {
        {"rope_type", "linear"},
        {"factor", positive_number(file, prefix + "factor", std::nullopt)}};
  }
  reject(
      ErrorKind::Unsupported,
      file,
      "key '{}type': found '{}'{}, expected none, linear, or the divisors of "
      "Llama 3.x. Use the Hugging Face directory of this model instead",
      prefix,
      type,
      divisors != nullptr ? " with rope_freqs" : "");
}

void add_gemma_keys(
    const GgufFile& file,
    const GgufArchitecture& architecture,
    Json& config) {
  const std::string prefix = architecture.name + ".";
  const int hidden = config["hidden_size"].get<int>();
  config["hidden_activation"] = "gelu_pytorch_tanh";
  config["query_pre_attn_scalar"] = architecture.n_layers == kGemma27bLayers
      ? hidden / architecture.n_heads
      : architecture.head_dim;
  config["rope_local_base_freq"] =
      positive_number(file, prefix + "rope.freq_base_swa", kGemmaLocalRopeBase);
  config["sliding_window"] =
      required_integer(file, prefix + "attention.sliding_window", kMaxWidth);
  config["sliding_window_pattern"] = integer_or(
      file,
      prefix + "attention.sliding_window_pattern",
      kGemmaSlidingPattern,
      kMaxLayers);
  if (file.has(prefix + "final_logit_softcapping")) {
    reject(
        ErrorKind::Unsupported,
        file,
        "key '{}final_logit_softcapping': found soft-capped logits, which "
        "Gemma 3 has not. Is it another architecture?",
        prefix);
  }
}

// --- names -------------------------------------------------------------------

struct NameRow {
  const char* gguf;
  const char* hf;
};

constexpr NameRow kLayerNames[] = {
    {"attn_norm.weight", "input_layernorm.weight"},
    {"attn_q.weight", "self_attn.q_proj.weight"},
    {"attn_k.weight", "self_attn.k_proj.weight"},
    {"attn_v.weight", "self_attn.v_proj.weight"},
    {"attn_output.weight", "self_attn.o_proj.weight"},
    {"attn_q_norm.weight", "self_attn.q_norm.weight"},
    {"attn_k_norm.weight", "self_attn.k_norm.weight"},
    {"ffn_gate.weight", "mlp.gate_proj.weight"},
    {"ffn_up.weight", "mlp.up_proj.weight"},
    {"ffn_down.weight", "mlp.down_proj.weight"},
};
constexpr NameRow kPlainNorms[] = {
    {"ffn_norm.weight", "post_attention_layernorm.weight"},
};
constexpr NameRow kSandwichNorms[] = {
    {"post_attention_norm.weight", "post_attention_layernorm.weight"},
    {"ffn_norm.weight", "pre_feedforward_layernorm.weight"},
    {"post_ffw_norm.weight", "post_feedforward_layernorm.weight"},
};

const char* find_name(std::span<const NameRow> rows, std::string_view name) {
  const auto row =
      std::find_if(rows.begin(), rows.end(), [&](const NameRow& r) {
        return name == r.gguf;
      });
  return row == rows.end() ? nullptr : row->hf;
}

/** "model.layers.3.mlp.up_proj.weight" of "blk.3.ffn_up.weight". */
std::optional<std::string> layer_tensor_name(
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
  const char* hf = find_name(kLayerNames, name);
  if (hf == nullptr) {
    hf = architecture.sandwich_norms ? find_name(kSandwichNorms, name)
                                     : find_name(kPlainNorms, name);
  }
  return hf == nullptr
      ? std::nullopt
      : std::optional(fmt::format("model.layers.{}.{}", layer, hf));
}

} // namespace

GgufArchitecture gguf_architecture(const GgufFile& file) {
  const std::string name = file.text("general.architecture").value_or("");
  const ArchitectureRow* row = find_row(name);
  if (row == nullptr) {
    std::string known;
    for (const ArchitectureRow& r : kArchitectures) {
      known += fmt::format("{}{}", known.empty() ? "" : ", ", r.name);
    }
    reject(
        ErrorKind::Unsupported,
        file,
        "key 'general.architecture': found '{}', expected one of: {}",
        name,
        known);
  }
  if (const auto n = file.integer("split.count"); n && *n > 1) {
    reject(
        ErrorKind::Unsupported,
        file,
        "key 'split.count': found one of {} parts, expected a whole model. "
        "Merge the parts first",
        *n);
  }
  const std::string prefix = name + ".";
  GgufArchitecture result{
      .name = name,
      .n_layers = required_integer(file, prefix + "block_count", kMaxLayers),
      .n_heads =
          required_integer(file, prefix + "attention.head_count", kMaxHeads),
      .interleaved_heads = row->interleaved_heads,
      .shifted_norms = row->shifted_norms,
      .sandwich_norms = row->sandwich_norms};
  result.n_kv_heads = integer_or(
      file, prefix + "attention.head_count_kv", result.n_heads, kMaxHeads);
  const int hidden =
      required_integer(file, prefix + "embedding_length", kMaxWidth);
  result.head_dim = integer_or(
      file,
      prefix + "attention.key_length",
      std::max(1, hidden / result.n_heads),
      kMaxWidth);
  for (const char* key : {"attention.value_length", "rope.dimension_count"}) {
    const int found =
        integer_or(file, prefix + key, result.head_dim, kMaxWidth);
    if (found != result.head_dim || found % 2 != 0) {
      reject(
          ErrorKind::Unsupported,
          file,
          "key '{}{}': found {}, expected head_dim {}, even",
          prefix,
          key,
          found,
          result.head_dim);
    }
  }
  return result;
}

Json gguf_config(const GgufFile& file, const GgufArchitecture& architecture) {
  const ArchitectureRow& row = *find_row(architecture.name);
  const std::string prefix = architecture.name + ".";
  const GgufTensor* embedding = find_tensor(file, kEmbedding);
  if (embedding == nullptr || embedding->shape.size() != 2) {
    reject(
        ErrorKind::Corrupt,
        file,
        "found no tensor '{}' of two axes, expected the embeddings",
        kEmbedding);
  }
  const double rope_theta =
      positive_number(file, prefix + "rope.freq_base", 10000.0);
  Json config = {
      {"architectures", Json::array({row.class_name})},
      {"model_type", row.model_type},
      {"hidden_size",
       required_integer(file, prefix + "embedding_length", kMaxWidth)},
      {"num_hidden_layers", architecture.n_layers},
      {"intermediate_size",
       required_integer(file, prefix + "feed_forward_length", kMaxWidth)},
      {"num_attention_heads", architecture.n_heads},
      {"num_key_value_heads", architecture.n_kv_heads},
      {"head_dim", architecture.head_dim},
      {"vocab_size",
       checked_integer(
           file,
           kEmbedding,
           static_cast<std::uint64_t>(embedding->shape[0]),
           kMaxVocabulary)},
      {"rms_norm_eps",
       positive_number(
           file, prefix + "attention.layer_norm_rms_epsilon", std::nullopt)},
      {"rope_theta", rope_theta},
      {"max_position_embeddings",
       required_integer(
           file,
           prefix + "context_length",
           std::numeric_limits<std::int32_t>::max())},
      {"tie_word_embeddings", find_tensor(file, kHead) == nullptr}};
  const Json scaling = rope_scaling(file, architecture, rope_theta);
  if (!scaling.is_null()) {
    config["rope_scaling"] = scaling;
  }
  if (architecture.sandwich_norms) {
    add_gemma_keys(file, architecture, config);
  }
  add_token_ids(file, config);
  return config;
}

std::optional<std::string> hf_tensor_name(
    const GgufFile& file,
    const GgufArchitecture& architecture,
    const std::string& name) {
  if (name == kRopeFactors) {
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
  if (auto layer = layer_tensor_name(architecture, name)) {
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
