#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "io/gguf/cases.h"

/** Small models as GGUF files. */
namespace optiq::test {

inline constexpr std::uint32_t kF32 = 0;
inline constexpr std::uint32_t kF16 = 1;
inline constexpr std::uint32_t kQ8_0 = 8;

/** Bytes that n elements take; of a type that is not read, any number. */
inline std::uint64_t gguf_bytes(std::uint32_t type, std::uint64_t n) {
  struct Row {
    std::uint32_t type;
    std::uint64_t elements, bytes; // of a block
  };
  constexpr Row kRows[] = {
      {kF32, 1, 4},
      {kF16, 1, 2},
      {2, 32, 18},
      {3, 32, 20},
      {6, 32, 22},
      {7, 32, 24},
      {kQ8_0, 32, 34},
      {12, 256, 144},
      {13, 256, 176},
      {14, 256, 210},
      {30, 1, 2}};
  for (const Row& row : kRows) {
    if (row.type == type) {
      return n / row.elements * row.bytes;
    }
  }
  return n;
}

inline std::string f32_value(const std::string& key, float value) {
  return gguf_value(key, 6, raw(value));
}

/** A small model: metadata and tensors by name, any of which a test changes. */
struct SmallModel {
  std::map<std::string, std::string> values; // key -> encoded value
  struct Tensor {
    std::vector<std::uint64_t> axes;
    std::uint32_t type = kF32;
    std::string bytes; // empty: zeros
  };
  std::map<std::string, Tensor> tensors;

  void set(const std::string& key, const std::string& encoded) {
    values[key] = encoded;
  }
  void set_u32(const std::string& key, std::uint32_t value) {
    values[key] = gguf_u32(key, value);
  }
  void set_text(const std::string& key, const std::string& value) {
    values[key] = gguf_text(key, value);
  }

  std::string bytes() const {
    constexpr std::size_t kAlignment = 32;
    GgufParts parts;
    parts.data.clear();
    for (const auto& [key, encoded] : values) {
      parts.values.push_back(encoded);
    }
    for (const auto& [name, tensor] : tensors) {
      std::uint64_t n = 1;
      for (const std::uint64_t axis : tensor.axes) {
        n *= axis;
      }
      const std::uint64_t size = gguf_bytes(tensor.type, n);
      parts.tensors.push_back(
          gguf_tensor(name, tensor.axes, tensor.type, parts.data.size()));
      parts.data +=
          tensor.bytes.empty() ? std::string(size, '\0') : tensor.bytes;
      parts.data.resize(
          (parts.data.size() + kAlignment - 1) / kAlignment * kAlignment, '\0');
    }
    return parts.bytes();
  }
};

/** 32 wide, one layer, 2 heads of 16, 1 kv head, 4 tokens, byte-level. */
inline SmallModel llama(const std::string& name = "llama") {
  SmallModel model;
  model.set_text("general.architecture", name);
  model.set_u32(name + ".block_count", 1);
  model.set_u32(name + ".context_length", 128);
  model.set_u32(name + ".embedding_length", 32);
  model.set_u32(name + ".feed_forward_length", 64);
  model.set_u32(name + ".attention.head_count", 2);
  model.set_u32(name + ".attention.head_count_kv", 1);
  model.set(
      name + ".attention.layer_norm_rms_epsilon",
      f32_value(name + ".attention.layer_norm_rms_epsilon", 1e-5f));
  model.set(
      name + ".rope.freq_base", f32_value(name + ".rope.freq_base", 1e6f));
  const std::string t = "tokenizer.ggml.";
  model.set_text(t + "model", "gpt2");
  model.set_text(t + "pre", "smollm");
  model.set(t + "tokens", gguf_texts(t + "tokens", {"a", "b", "ab", "<end>"}));
  model.set(
      t + "token_type",
      gguf_array(t + "token_type", 5, 4, u32(1) + u32(1) + u32(1) + u32(3)));
  model.set(t + "merges", gguf_texts(t + "merges", {"a b"}));
  model.set_u32(t + "eos_token_id", 3);
  model.tensors = {
      {"token_embd.weight", {{32, 4}, kQ8_0, ""}},
      {"output_norm.weight", {{32}, kF32, ""}},
      {"blk.0.attn_norm.weight", {{32}, kF32, ""}},
      {"blk.0.attn_q.weight", {{32, 32}, kF32, ""}},
      {"blk.0.attn_k.weight", {{32, 16}, kF16, ""}},
      {"blk.0.attn_v.weight", {{32, 16}, kF16, ""}},
      {"blk.0.attn_output.weight", {{32, 32}, kQ8_0, ""}},
      {"blk.0.ffn_norm.weight", {{32}, kF32, ""}},
      {"blk.0.ffn_gate.weight", {{32, 64}, kQ8_0, ""}},
      {"blk.0.ffn_up.weight", {{32, 64}, kQ8_0, ""}},
      {"blk.0.ffn_down.weight", {{64, 32}, kQ8_0, ""}}};
  return model;
}

inline SmallModel gemma() {
  SmallModel model = llama("gemma3");
  model.set_u32("gemma3.attention.sliding_window", 512);
  model.set_u32("gemma3.attention.key_length", 16);
  model.tensors["blk.0.post_attention_norm.weight"] = {{32}, kF32, ""};
  model.tensors["blk.0.post_ffw_norm.weight"] = {{32}, kF32, ""};
  model.tensors["blk.0.attn_q_norm.weight"] = {{16}, kF32, ""};
  model.tensors["blk.0.attn_k_norm.weight"] = {{16}, kF32, ""};
  return model;
}

} // namespace optiq::test
