#pragma once

#include <span>
#include <string_view>

#include "optiq/artifacts/json.h"
#include "optiq/io/gguf/config.h"
#include "optiq/io/gguf/keys_impl.h"

/** The architectures of llama.cpp that are read, as rows of data. */
namespace optiq::io {

/** A module of a layer, "attn_q" of "blk.0.attn_q.weight", and what Hugging
 * Face calls it. */
struct ModuleName {
  const char* gguf;
  const char* hf;
};

struct ArchitectureRow {
  const char* name; // general.architecture
  const char* model_type; // of Hugging Face
  const char* class_name;
  /** Rows of q and k are stored as InterleavedHeads. */
  bool interleaved_heads = false;
  bool shifted_norms = false; // stored as 1 + w
  bool turns_parts_of_heads = false; // rope.dimension_count below head_dim
  bool has_layer_norms = false; // LayerNorm, not RMSNorm
  std::span<const ModuleName> names; // besides those that all have
  /** Adds the keys of config.json that only this architecture has. */
  void (*add_keys)(const GgufKeys& keys, artifacts::Json& config) = nullptr;
};

/** Throws Unsupported naming the architectures that are known. */
const ArchitectureRow& find_architecture(const GgufFile& file);

/** The Hugging Face name of a module of a layer, or nullptr. */
const char* find_module(const ArchitectureRow& row, std::string_view gguf_name);

/** config.json's rope_scaling: null without any. `rotary_dim` channels of a
 * head turn. Throws Unsupported for a scaling that cannot be expressed. */
artifacts::Json
gguf_rope_scaling(const GgufKeys& keys, double rope_theta, int rotary_dim);

/** Tensors that gguf_rope_scaling takes in. */
bool is_rope_tensor(const std::string& name);

} // namespace optiq::io
