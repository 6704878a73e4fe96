#pragma once

#include "optiq/artifacts/json.h"
#include "optiq/io/gguf/file.h"

/** A model's configuration, from the metadata of a GGUF file. */
namespace optiq::io {

/** Numbers of the architecture that the tensors' names and shapes follow. */
struct GgufArchitecture {
  std::string name; // "llama", "qwen3", "gemma3"...
  int n_layers = 0;
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int rotary_dim = 0; // channels of a head that RoPE turns, the first ones
  /** Rows of q and k are stored as InterleavedHeads. */
  bool interleaved_heads = false;
  /** Norm weights are stored as 1 + w. */
  bool shifted_norms = false;
};

/** Throws Unsupported for another architecture, Corrupt for numbers that are
 * missing or out of range. */
GgufArchitecture gguf_architecture(const GgufFile& file);

/** What config.json of the Hugging Face directory would say. Throws Corrupt, or
 * Unsupported for a scaling of RoPE that cannot be expressed. */
artifacts::Json gguf_config(
    const GgufFile& file,
    const GgufArchitecture& architecture);

/** The Hugging Face name of a tensor, or nothing for one that the
 * configuration has taken in (divisors of RoPE). Throws Unsupported for an
 * unknown name. */
std::optional<std::string> hf_tensor_name(
    const GgufFile& file,
    const GgufArchitecture& architecture,
    const std::string& name);

} // namespace optiq::io
