#include "optiq/artifacts/kv_config.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <set>
#include <string_view>

#include "optiq/base/error.h"

namespace optiq::artifacts {
namespace {

constexpr std::string_view kKeys[] = {
    "layer_idx",
    "bits",
    "value_bits",
    "group_size",
    "method",
    "rotation",
    "seed"};

/** 3 as 3, 2.5 as 2.5. */
Json number(double value) {
  constexpr double kLargestExact = 9007199254740992; // 2^53
  return std::trunc(value) == value && std::abs(value) <= kLargestExact
      ? Json(static_cast<std::int64_t>(value))
      : Json(value);
}

void require_known_keys(const Json& entry, const std::string& where) {
  for (const auto& [key, value] : entry.items()) {
    if (std::find(std::begin(kKeys), std::end(kKeys), key) == std::end(kKeys)) {
      fail(
          ErrorKind::Corrupt,
          "[kv_config] {}: found the key '{}', expected layer_idx, bits, "
          "value_bits, group_size, method, rotation or seed",
          where,
          key);
    }
  }
}

/** Names are flags on the command line (InvalidInput) and content in a file. */
template <typename T>
T name_in_file(
    const Json& entry,
    const char* key,
    const std::string& where,
    T (*parse)(const std::string&),
    T fallback) {
  const auto name =
      optional_or<std::string>(entry, key, where, name_of(fallback));
  try {
    return parse(name);
  } catch (const Error& error) {
    fail(ErrorKind::Corrupt, "[kv_config] {}: {}", where, error.what());
  }
}

KvLayer layer_from_json(const Json& entry, const std::string& where) {
  if (!entry.is_object()) {
    fail(
        ErrorKind::Corrupt,
        "[kv_config] {}: found {}, expected an object with layer_idx, bits "
        "and group_size",
        where,
        describe(entry));
  }
  require_known_keys(entry, where);
  const int layer_idx = required<int>(entry, "layer_idx", where);
  KvCodec codec;
  codec.key_bits = required<double>(entry, "bits", where);
  codec.value_bits =
      optional_or<double>(entry, "value_bits", where, codec.key_bits);
  codec.group_size =
      optional_or<int>(entry, "group_size", where, codec.group_size);
  codec.method =
      name_in_file(entry, "method", where, kv_method_of, KvMethod::Affine);
  codec.rotation =
      name_in_file(entry, "rotation", where, kv_rotation_of, codec.rotation);
  codec.seed = optional_or<std::uint64_t>(entry, "seed", where, codec.seed);
  return {layer_idx, codec};
}

const Json& require_list(const Json& json, const std::string& where) {
  if (!json.is_array()) {
    fail(
        ErrorKind::Corrupt,
        "[kv_config] {}: found {}, expected a list with one object per layer",
        where,
        describe(json));
  }
  return json;
}

} // namespace

Json to_json(const KvConfig& config) {
  Json list = Json::array();
  const KvCodec defaults;
  for (const auto& [layer_idx, codec] : config.layers) {
    assert(codec.method != KvMethod::Dense); // such layers are left out
    Json entry;
    entry["layer_idx"] = layer_idx;
    entry["bits"] = number(codec.key_bits);
    if (codec.value_bits != codec.key_bits) {
      entry["value_bits"] = number(codec.value_bits);
    }
    entry["group_size"] = codec.group_size;
    if (codec.method == KvMethod::Turbo) {
      entry["method"] = name_of(codec.method);
      if (codec.rotation != defaults.rotation) {
        entry["rotation"] = name_of(codec.rotation);
      }
      if (codec.seed != defaults.seed) {
        entry["seed"] = codec.seed;
      }
    }
    list.push_back(std::move(entry));
  }
  return list;
}

KvConfig kv_config_from_json(const Json& json, const std::string& where) {
  KvConfig config;
  std::set<int> seen;
  for (const Json& entry : require_list(json, where)) {
    const std::string place =
        where + ", entry " + std::to_string(config.layers.size());
    const KvLayer layer = layer_from_json(entry, place);
    if (layer.layer_idx < 0 || !seen.insert(layer.layer_idx).second) {
      fail(
          ErrorKind::Corrupt,
          "[kv_config] {}: found layer_idx {} {}, expected each layer once",
          place,
          layer.layer_idx,
          layer.layer_idx < 0 ? "below zero" : "again");
    }
    config.layers.push_back(layer);
  }
  std::sort(
      config.layers.begin(),
      config.layers.end(),
      [](const KvLayer& a, const KvLayer& b) {
        return a.layer_idx < b.layer_idx;
      });
  return config;
}

KvConfig read_kv_config(const std::filesystem::path& file) {
  return kv_config_from_json(read_json_file(file), file.string());
}

std::optional<KvCost> measured_cost(
    const KvLayer& layer,
    const KvLayerSensitivity& sensitivity) {
  const auto find = [&](double key_bits,
                        double value_bits) -> const KvCandidate* {
    for (const KvCandidate& c : sensitivity.candidates) {
      if (c.codec.method == layer.codec.method &&
          c.codec.key_bits == key_bits && c.codec.value_bits == value_bits) {
        return &c;
      }
    }
    return nullptr;
  };
  if (const auto* both = find(layer.codec.key_bits, layer.codec.value_bits)) {
    return KvCost{both->kl, both->bytes_per_token};
  }
  const auto* keys = find(layer.codec.key_bits, 0);
  const auto* values = find(0, layer.codec.value_bits);
  if (keys == nullptr || values == nullptr) {
    return std::nullopt;
  }
  return KvCost{
      keys->kl + values->kl, keys->bytes_per_token + values->bytes_per_token};
}

Json to_json(const std::vector<KvLayerSensitivity>& layers) {
  Json list = Json::array();
  for (const KvLayerSensitivity& layer : layers) {
    Json entry;
    entry["layer_idx"] = layer.layer_idx;
    entry["layer_name"] = layer.layer_name;
    // The original's key: affine with equal widths on both sides.
    Json uniform = Json::object();
    Json candidates = Json::array();
    for (const KvCandidate& c : layer.candidates) {
      const KvCodec& codec = c.codec;
      if (codec.method == KvMethod::Affine &&
          codec.key_bits == codec.value_bits) {
        uniform[number(codec.key_bits).dump()] = c.kl;
      }
      candidates.push_back(
          {{"method", name_of(codec.method)},
           {"key_bits", number(codec.key_bits)},
           {"value_bits", number(codec.value_bits)},
           {"kl", c.kl},
           {"bytes_per_token", number(c.bytes_per_token)}});
    }
    entry["sensitivities"] = std::move(uniform);
    entry["candidates"] = std::move(candidates);
    entry["n_kv_heads"] = layer.n_kv_heads;
    entry["head_dim"] = layer.head_dim;
    list.push_back(std::move(entry));
  }
  return list;
}

std::vector<KvLayerSensitivity> kv_sensitivity_from_json(
    const Json& json,
    const std::string& where) {
  std::vector<KvLayerSensitivity> layers;
  for (const Json& entry : require_list(json, where)) {
    const std::string place =
        where + ", entry " + std::to_string(layers.size());
    KvLayerSensitivity layer{
        .layer_idx = required<int>(entry, "layer_idx", place),
        .layer_name = required<std::string>(entry, "layer_name", place),
        .n_kv_heads = required<int>(entry, "n_kv_heads", place),
        .head_dim = required<int>(entry, "head_dim", place),
        .candidates = {}};
    const auto found = entry.find("candidates");
    if (found == entry.end() || !found->is_array()) {
      fail(
          ErrorKind::Corrupt,
          "[kv_sensitivity] {}: expected a list 'candidates'",
          place);
    }
    for (const Json& c : *found) {
      layer.candidates.push_back(
          {.codec =
               {.method = name_in_file(
                    c, "method", place, kv_method_of, KvMethod::Affine),
                .key_bits = required<double>(c, "key_bits", place),
                .value_bits = required<double>(c, "value_bits", place)},
           .kl = required<double>(c, "kl", place),
           .bytes_per_token = required<double>(c, "bytes_per_token", place)});
    }
    layers.push_back(std::move(layer));
  }
  return layers;
}

} // namespace optiq::artifacts
