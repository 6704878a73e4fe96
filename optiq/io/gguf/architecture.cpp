#include <algorithm>
#include <cmath>

#include "optiq/io/gguf/architecture_impl.h"

namespace optiq::io {
namespace {

using artifacts::Json;

// --- names -------------------------------------------------------------------

constexpr ModuleName kCommonNames[] = {
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
};
constexpr ModuleName kPreNorms[] = {
    {"attn_norm", "input_layernorm"},
    {"ffn_norm", "post_attention_layernorm"},
};
constexpr ModuleName kSandwichNorms[] = {
    {"attn_norm", "input_layernorm"},
    {"post_attention_norm", "post_attention_layernorm"},
    {"ffn_norm", "pre_feedforward_layernorm"},
    {"post_ffw_norm", "post_feedforward_layernorm"},
};
constexpr ModuleName kPostNorms[] = {
    {"post_attention_norm", "post_attention_layernorm"},
    {"post_ffw_norm", "post_feedforward_layernorm"},
};
constexpr ModuleName kOneNorm[] = {
    {"attn_norm", "input_layernorm"},
};
constexpr ModuleName kPhiNames[] = {
    {"attn_norm", "input_layernorm"},
    {"ffn_norm", "post_attention_layernorm"},
    {"attn_qkv", "self_attn.qkv_proj"},
    {"ffn_up", "mlp.gate_up_proj"},
};
constexpr ModuleName kGlmNames[] = {
    {"attn_norm", "input_layernorm"},
    {"post_attention_norm", "post_self_attn_layernorm"},
    {"ffn_norm", "post_attention_layernorm"},
    {"post_ffw_norm", "post_mlp_layernorm"},
    {"ffn_up", "mlp.gate_up_proj"},
};

// --- keys --------------------------------------------------------------------

bool has_bias(const GgufKeys& keys, const char* module) {
  return keys.find_tensor(fmt::format("blk.0.{}.bias", module)) != nullptr;
}

void add_sliding_window(const GgufKeys& keys, Json& config) {
  config["sliding_window"] =
      keys.integer("attention.sliding_window", kMaxGgufPositions);
}

void add_llama_keys(const GgufKeys& keys, Json& config) {
  for (const auto& [key, module] :
       {std::pair{"attention_bias", "attn_q"},
        std::pair{"mlp_bias", "ffn_down"}}) {
    if (has_bias(keys, module)) {
      config[key] = true;
    }
  }
}

void add_phi3_keys(const GgufKeys& keys, Json& config) {
  config["original_max_position_embeddings"] = keys.integer_or(
      "rope.scaling.original_context_length",
      config["max_position_embeddings"].get<int>(),
      kMaxGgufPositions);
  const std::string window = keys.name_of("attention.sliding_window");
  if (keys.file().integer(window).value_or(0) != 0) { // 0: none
    add_sliding_window(keys, config);
  }
}

/** What queries are divided by the root of: head_dim, but hidden_size / heads
 * in one model of a generation, which its number of layers tells. */
void add_query_scalar(int n_layers_of_exception, Json& config) {
  const int hidden = config["hidden_size"].get<int>();
  const int n_heads = config["num_attention_heads"].get<int>();
  config["query_pre_attn_scalar"] =
      config["num_hidden_layers"] == n_layers_of_exception
      ? Json(hidden / n_heads)
      : config["head_dim"];
}

void add_gemma2_keys(const GgufKeys& keys, Json& config) {
  constexpr int k27bLayers = 46; // arXiv 2408.00118
  add_query_scalar(k27bLayers, config);
  add_sliding_window(keys, config);
  config["hidden_activation"] = "gelu_pytorch_tanh";
  config["attn_logit_softcapping"] =
      keys.positive_or("attn_logit_softcapping", 50);
  config["final_logit_softcapping"] =
      keys.positive_or("final_logit_softcapping", 30);
}

void add_gemma3_keys(const GgufKeys& keys, Json& config) {
  constexpr int k27bLayers = 62; // arXiv 2503.19786
  constexpr int kPattern = 6; // every sixth layer attends to all
  constexpr double kLocalRopeBase = 10000;
  add_query_scalar(k27bLayers, config);
  add_sliding_window(keys, config);
  config["hidden_activation"] = "gelu_pytorch_tanh";
  config["rope_local_base_freq"] =
      keys.positive_or("rope.freq_base_swa", kLocalRopeBase);
  config["sliding_window_pattern"] = keys.integer_or(
      "attention.sliding_window_pattern", kPattern, kMaxGgufLayers);
  if (keys.has("final_logit_softcapping")) {
    reject_config(
        ErrorKind::Unsupported,
        keys.file(),
        "key '{}': found soft-capped logits, which Gemma 3 has not. Is it "
        "another architecture?",
        keys.name_of("final_logit_softcapping"));
  }
}

void add_smollm3_keys(const GgufKeys& keys, Json& config) {
  add_llama_keys(keys, config);
  config["no_rope_layer_interval"] = 4; // llama.cpp's: the file does not say
}

/** OLMo 3 has the architecture of OLMo 2, and windows. */
void add_olmo_keys(const GgufKeys& keys, Json& config) {
  add_llama_keys(keys, config);
  if (!keys.has("attention.sliding_window")) {
    return;
  }
  config["model_type"] = "olmo3";
  config["architectures"] = Json::array({"Olmo3ForCausalLM"});
  add_sliding_window(keys, config);
  const std::string key = keys.name_of("attention.sliding_window_pattern");
  if (const auto slides = keys.file().integers(key)) {
    Json& types = config["layer_types"] = Json::array();
    for (const std::int64_t slide : *slides) {
      types.push_back(slide != 0 ? "sliding_attention" : "full_attention");
    }
  }
}

void add_granite_keys(const GgufKeys& keys, Json& config) {
  config["attention_bias"] = has_bias(keys, "attn_q");
  config["mlp_bias"] = has_bias(keys, "ffn_down");
  const int head_dim = config["head_dim"].get<int>();
  config["attention_multiplier"] =
      keys.nonzero_or("attention.scale", 1 / std::sqrt(head_dim));
  config["embedding_multiplier"] = keys.nonzero_or("embedding_scale", 1);
  config["residual_multiplier"] = keys.nonzero_or("residual_scale", 1);
  config["logits_scaling"] = keys.nonzero_or("logit_scale", 1);
}

void add_glm4_keys(const GgufKeys& keys, Json& config) {
  config["attention_bias"] = has_bias(keys, "attn_q");
}

void add_cohere2_keys(const GgufKeys& keys, Json& config) {
  add_sliding_window(keys, config);
  config["sliding_window_pattern"] = 4; // llama.cpp's: the file does not say
  config["logit_scale"] = keys.positive("logit_scale");
}

/** Mistral Small 3.1, or Ministral 3, whose queries grow with their position.
 */
void add_mistral3_keys(const GgufKeys& keys, Json& config) {
  add_llama_keys(keys, config);
  const double growth = keys.nonzero_or("attention.temperature_scale", 0);
  if (growth == 0) {
    return;
  }
  config["model_type"] = "ministral3";
  config["architectures"] = Json::array({"Ministral3ForCausalLM"});
  Json rope = config.value("rope_scaling", Json({{"rope_type", "default"}}));
  rope["rope_theta"] = config["rope_theta"];
  rope["llama_4_scaling_beta"] = growth;
  rope["original_max_position_embeddings"] =
      keys.integer("rope.scaling.original_context_length", kMaxGgufPositions);
  config["rope_parameters"] = rope;
  config.erase("rope_scaling");
  config.erase("rope_theta");
}

constexpr ArchitectureRow kArchitectures[] = {
    {.name = "llama",
     .model_type = "llama",
     .class_name = "LlamaForCausalLM",
     .interleaved_heads = true,
     .names = kPreNorms,
     .add_keys = add_llama_keys},
    {.name = "qwen2",
     .model_type = "qwen2",
     .class_name = "Qwen2ForCausalLM",
     .names = kPreNorms},
    {.name = "qwen3",
     .model_type = "qwen3",
     .class_name = "Qwen3ForCausalLM",
     .names = kPreNorms},
    {.name = "phi3",
     .model_type = "phi3",
     .class_name = "Phi3ForCausalLM",
     .turns_parts_of_heads = true,
     .names = kPhiNames,
     .add_keys = add_phi3_keys},
    {.name = "gemma2",
     .model_type = "gemma2",
     .class_name = "Gemma2ForCausalLM",
     .shifted_norms = true,
     .names = kSandwichNorms,
     .add_keys = add_gemma2_keys},
    {.name = "gemma3",
     .model_type = "gemma3_text",
     .class_name = "Gemma3ForCausalLM",
     .shifted_norms = true,
     .names = kSandwichNorms,
     .add_keys = add_gemma3_keys},
    {.name = "smollm3",
     .model_type = "smollm3",
     .class_name = "SmolLM3ForCausalLM",
     .interleaved_heads = true,
     .names = kPreNorms,
     .add_keys = add_smollm3_keys},
    {.name = "olmo2",
     .model_type = "olmo2",
     .class_name = "Olmo2ForCausalLM",
     .names = kPostNorms,
     .add_keys = add_olmo_keys},
    {.name = "granite",
     .model_type = "granite",
     .class_name = "GraniteForCausalLM",
     .interleaved_heads = true,
     .names = kPreNorms,
     .add_keys = add_granite_keys},
    {.name = "glm4",
     .model_type = "glm4",
     .class_name = "Glm4ForCausalLM",
     .turns_parts_of_heads = true,
     .names = kGlmNames,
     .add_keys = add_glm4_keys},
    {.name = "cohere2",
     .model_type = "cohere2",
     .class_name = "Cohere2ForCausalLM",
     .has_layer_norms = true,
     .names = kOneNorm,
     .add_keys = add_cohere2_keys},
    {.name = "mistral3",
     .model_type = "mistral",
     .class_name = "MistralForCausalLM",
     .interleaved_heads = true,
     .names = kPreNorms,
     .add_keys = add_mistral3_keys},
};

const char* find_name(
    std::span<const ModuleName> rows,
    std::string_view gguf_name) {
  const auto row =
      std::find_if(rows.begin(), rows.end(), [&](const ModuleName& name) {
        return gguf_name == name.gguf;
      });
  return row == rows.end() ? nullptr : row->hf;
}

} // namespace

const ArchitectureRow& find_architecture(const GgufFile& file) {
  const std::string name = file.text("general.architecture").value_or("");
  std::string known;
  for (const ArchitectureRow& row : kArchitectures) {
    if (name == row.name) {
      return row;
    }
    known += fmt::format("{}{}", known.empty() ? "" : ", ", row.name);
  }
  reject_config(
      ErrorKind::Unsupported,
      file,
      "key 'general.architecture': found '{}', expected one of: {}",
      name,
      known);
}

const char* find_module(
    const ArchitectureRow& row,
    std::string_view gguf_name) {
  const char* own = find_name(row.names, gguf_name);
  return own != nullptr ? own : find_name(kCommonNames, gguf_name);
}

} // namespace optiq::io
