#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "optiq/artifacts/json.h"
#include "optiq/artifacts/kv_codec.h"

namespace optiq::artifacts {

/** The cache of one attention layer. */
struct KvLayer {
  int layer_idx = 0; // in the model's list of layers, not of caches
  KvCodec codec; // its rotation has the seed codec.seed + layer_idx

  bool operator==(const KvLayer&) const = default;
};

/**
 * kv_config.json: a list of {layer_idx, bits, group_size}. Layers that are not
 * in it keep full precision. Keys beyond these three stand only where they say
 * something: value_bits where it differs from bits (which are the key's then),
 * method, rotation and seed where they are not affine, hadamard and 42.
 */
struct KvConfig {
  std::vector<KvLayer> layers; // by layer_idx, each once
};

Json to_json(const KvConfig& config);
/** Throws Corrupt naming `where`, the entry and the key; for an unknown key
 * too, since ignoring it would run another cache than the file describes. */
KvConfig kv_config_from_json(const Json& json, const std::string& where);

KvConfig read_kv_config(const std::filesystem::path& file);

/** KL that one layer's cache alone costs, per candidate (nats, mean over
 * positions), as kv_sensitivity.json lists it. */
struct KvCandidate {
  KvCodec codec; // the file has its method and widths alone
  double kl = 0;
  double bytes_per_token = 0; // of the quantized sides
};

struct KvLayerSensitivity {
  int layer_idx = 0;
  std::string layer_name; // "model.layers.3"
  int n_kv_heads = 0;
  int head_dim = 0;
  std::vector<KvCandidate> candidates;
};

/** What a cache costs by a measurement. */
struct KvCost {
  double kl = 0; // of this layer alone; of sides measured alone, their sum
  double bytes_per_token = 0;
};

/** Of a layer's cache: of the candidate with its method and widths, or of its
 * two sides; nothing where they were not measured. */
std::optional<KvCost> measured_cost(
    const KvLayer& layer,
    const KvLayerSensitivity& sensitivity);

Json to_json(const std::vector<KvLayerSensitivity>& layers);
std::vector<KvLayerSensitivity> kv_sensitivity_from_json(
    const Json& json,
    const std::string& where);

} // namespace optiq::artifacts
