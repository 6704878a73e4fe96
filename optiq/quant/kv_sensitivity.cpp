#include "optiq/quant/kv_sensitivity.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "optiq/artifacts/affine_format.h"
#include "optiq/artifacts/module_id.h"
#include "optiq/base/error.h"

namespace optiq::quant {
namespace mx = mlx::core;

namespace {

using artifacts::KvMethod;

// Below this no cache has changed anything: KL of a cache that is quantized is
// orders of magnitude above the rounding of its own sum.
constexpr double kLeastKl = 1e-9;

// The layer's offer of a method at a width; notes why where there is none.
std::optional<KvOffer> find_offer(
    kernels::Device& device,
    const kernels::KvFormat& dense,
    const KvSearch& search,
    KvLayerOffers& layer,
    KvMethod method,
    double bits) {
  const int idx = layer.layer_idx;
  // Keys alone and values alone: what a side adds to the dense other side.
  const auto block_bytes = [&](double key_bits, double value_bits) {
    return models::quantized_cache(
               dense,
               kv_layer(search, idx, method, key_bits, value_bits),
               kernels::Compute::Fast,
               device)
        .block_bytes();
  };
  try {
    const std::uint64_t dense_side = layer.dense_bytes / 2;
    return KvOffer{
        .method = method,
        .bits = bits,
        .key_bytes = block_bytes(bits, 0) - dense_side,
        .value_bytes = block_bytes(0, bits) - dense_side};
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Unsupported) {
      throw;
    }
    std::string& reasons = layer.refusals[bits];
    reasons += (reasons.empty() ? "" : " ") + std::string(error.what());
    return std::nullopt;
  }
}

void require_every_width(
    const std::vector<KvLayerOffers>& layers,
    const KvSearch& search) {
  for (const double bits : search.candidate_bits) {
    const bool offered =
        std::any_of(layers.begin(), layers.end(), [&](const auto& layer) {
          return std::any_of(
              layer.offers.begin(), layer.offers.end(), [&](const auto& offer) {
                return offer.bits == bits;
              });
        });
    if (!offered) {
      std::string names;
      for (const KvMethod method : search.methods) {
        names += (names.empty() ? "" : " and ") + std::string(name_of(method));
      }
      fail(
          ErrorKind::Unsupported,
          "[kv-cache] --candidate-bits: found {}, which {} cannot have in this "
          "model, expected affine at {} bits or turbo at 1, 2, 2.5, 3, 3.5, 4 "
          "or 5. {}",
          bits,
          names,
          artifacts::list_text(artifacts::kAffineBits),
          layers.back().refusals.at(bits));
    }
  }
}

/** The sides that a probe quantizes. */
enum class Sides { Both, Keys, Values };

std::vector<Sides> sides_of(const KvSearch& search) {
  return search.split ? std::vector{Sides::Keys, Sides::Values}
                      : std::vector{Sides::Both};
}

// One way to quantize one layer, and where its KL stands in the journal.
struct KvVariant {
  const KvOffer* offer = nullptr;
  Sides sides = Sides::Both;
  std::string probe;
  int id = 0; // Variant::bits

  double key_bits() const {
    return sides == Sides::Values ? 0 : offer->bits;
  }
  double value_bits() const {
    return sides == Sides::Keys ? 0 : offer->bits;
  }
};

// Everything but the width, the group size and the model, on which the
// journal's entries depend.
std::string probe_name(
    const KvLayerOffers& layer,
    const KvSearch& search,
    KvMethod method,
    Sides sides) {
  const char* what = sides == Sides::Both ? "kv"
      : sides == Sides::Keys              ? "k"
                                          : "v";
  std::string name =
      fmt::format("{} {} {}", layer.layer_name, what, name_of(method));
  if (method == KvMethod::Turbo) {
    name += fmt::format(
        " {} {}", name_of(search.codec.rotation), search.codec.seed);
  }
  return name;
}

// 4 of 4 bits, 25 of 2.5.
int width_id(double bits) {
  return static_cast<int>(bits == std::floor(bits) ? bits : 10 * bits);
}

std::vector<KvVariant> variants_of(
    const KvLayerOffers& layer,
    const KvSearch& search) {
  std::vector<KvVariant> variants;
  for (const Sides sides : sides_of(search)) {
    for (const KvOffer& offer : layer.offers) {
      variants.push_back(
          {&offer,
           sides,
           probe_name(layer, search, offer.method, sides),
           width_id(offer.bits)});
    }
  }
  return variants;
}

std::vector<Probe> make_probes(
    const models::Setup& setup,
    const std::vector<KvLayerOffers>& layers,
    const KvSearch& search) {
  std::vector<Probe> probes;
  for (const KvLayerOffers& layer : layers) {
    const int idx = layer.layer_idx;
    for (const KvVariant& v : variants_of(layer, search)) {
      if (probes.empty() || probes.back().name != v.probe) {
        probes.push_back({.name = v.probe, .first_layer = idx, .variants = {}});
      }
      const artifacts::KvLayer kv =
          kv_layer(search, idx, v.offer->method, v.key_bits(), v.value_bits());
      probes.back().variants.push_back(
          {.bits = v.id,
           .bytes = 0, // weights are shared, caches are made per forward
           .make = [&setup, kv] {
             return models::Setup(setup.model, setup.compute, {kv});
           }});
    }
  }
  return probes;
}

// Mean KL of each chunk over the layers at the narrowest width of the first
// method, which says how fragile the chunk's text is.
std::vector<double> chunk_scales(
    const std::vector<KvLayerOffers>& layers,
    const Calibration& calibration,
    const KvSearch& search,
    const SensitivityJournal& journal) {
  std::vector<double> scales(calibration.chunks.size(), 0.0);
  double n_layers = 0;
  for (const KvLayerOffers& layer : layers) {
    if (layer.offers.empty()) {
      continue;
    }
    ++n_layers;
    for (const KvVariant& v : variants_of(layer, search)) {
      for (std::size_t c = 0;
           v.offer == &layer.offers.front() && c < scales.size();
           ++c) {
        scales[c] += journal.at(v.probe, v.id, static_cast<int>(c));
      }
    }
  }
  for (double& scale : scales) {
    scale /= n_layers;
  }
  return scales;
}

void require_effect(const std::vector<KvMeasured>& measured) {
  double largest = 0;
  for (const KvMeasured& m : measured) {
    for (const artifacts::KvCandidate& candidate : m.layer.candidates) {
      largest = std::max(largest, candidate.kl);
    }
  }
  if (largest < kLeastKl) {
    fail(
        ErrorKind::InvalidInput,
        "[kv-cache] the largest KL of a quantized cache: found {:.1e}, "
        "expected at least {:.0e}. The output does not depend on the cache: "
        "raise --seq-len, or take other --calibration text.",
        largest,
        kLeastKl);
  }
}

} // namespace

void validate(KvSearch& search) {
  if (search.methods.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "[kv-cache] --methods: none given, expected affine, turbo or both.");
  }
  auto& bits = search.candidate_bits;
  if (bits.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "[kv-cache] --candidate-bits: none given, expected a list like 4,8.");
  }
  for (const double b : bits) {
    if (!(b > 0 && b <= 16)) {
      fail(
          ErrorKind::InvalidInput,
          "[kv-cache] --candidate-bits: found {}, expected widths of 1 to 8 "
          "bits, like 4,8.",
          b);
    }
  }
  std::sort(bits.begin(), bits.end());
  bits.erase(std::unique(bits.begin(), bits.end()), bits.end());
  auto& methods = search.methods;
  std::sort(methods.begin(), methods.end());
  methods.erase(std::unique(methods.begin(), methods.end()), methods.end());
  if (!artifacts::is_one_of(
          artifacts::kAffineGroupSizes, search.codec.group_size)) {
    fail(
        ErrorKind::InvalidInput,
        "[kv-cache] --group-size: found {}, expected {}.",
        search.codec.group_size,
        artifacts::list_text(artifacts::kAffineGroupSizes));
  }
}

artifacts::KvLayer kv_layer(
    const KvSearch& search,
    int layer_idx,
    KvMethod method,
    double key_bits,
    double value_bits) {
  artifacts::KvLayer layer{.layer_idx = layer_idx, .codec = search.codec};
  layer.codec.method = method;
  layer.codec.key_bits = key_bits;
  layer.codec.value_bits = value_bits;
  return layer;
}

std::vector<KvLayerOffers> kv_offers(
    const models::Model& model,
    const KvSearch& search) {
  const auto layout = models::cache_layout(model, kernels::Compute::Fast);
  std::vector<KvLayerOffers> layers;
  for (const int i : models::kv_layers(model)) {
    const auto& dense = std::get<kernels::KvFormat>(layout[i]);
    KvLayerOffers layer{
        .layer_idx = i,
        .layer_name = artifacts::layer_path(i),
        .n_kv_heads = dense.n_kv_heads,
        .head_dim = dense.head_dim,
        .dense_bytes = dense.block_bytes(),
        .offers = {},
        .refusals = {}};
    for (const KvMethod method : search.methods) {
      for (const double bits : search.candidate_bits) {
        if (const auto offer = find_offer(
                model.device(), dense, search, layer, method, bits)) {
          layer.offers.push_back(*offer);
        }
      }
    }
    layers.push_back(std::move(layer));
  }
  if (layers.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "[kv-cache] the model: found no layer with a K/V cache, expected one "
        "at least. Recurrent layers keep states, which stay as they are.");
  }
  require_every_width(layers, search);
  return layers;
}

std::vector<KvMeasured> measure_kv_sensitivity(
    const models::Setup& setup,
    const std::vector<KvLayerOffers>& layers,
    const Calibration& calibration,
    const KvSearch& search,
    const ProbeOptions& options,
    SensitivityJournal& journal,
    const ProgressSink& progress) {
  measure_probes(
      setup,
      make_probes(setup, layers, search),
      calibration,
      options,
      journal,
      progress);
  const std::vector<double> scales =
      chunk_scales(layers, calibration, search, journal);
  std::vector<KvMeasured> result;
  for (const KvLayerOffers& layer : layers) {
    if (layer.offers.empty()) {
      continue;
    }
    KvMeasured measured{
        .layer =
            {.layer_idx = layer.layer_idx,
             .layer_name = layer.layer_name,
             .n_kv_heads = layer.n_kv_heads,
             .head_dim = layer.head_dim,
             .candidates = {}},
        .relative_kl = {}};
    for (const KvVariant& v : variants_of(layer, search)) {
      const std::uint64_t bytes =
          (v.sides == Sides::Values ? 0 : v.offer->key_bytes) +
          (v.sides == Sides::Keys ? 0 : v.offer->value_bytes);
      measured.layer.candidates.push_back(
          {.codec = kv_layer(
                        search,
                        layer.layer_idx,
                        v.offer->method,
                        v.key_bits(),
                        v.value_bits())
                        .codec,
           .kl = mean_over_chunks(calibration, journal, v.probe, v.id).kl,
           .bytes_per_token =
               static_cast<double>(bytes) / kernels::kKvBlockTokens});
      measured.relative_kl.push_back(
          mean_relative_kl(journal, v.probe, v.id, scales));
    }
    result.push_back(std::move(measured));
  }
  require_effect(result);
  return result;
}

std::uint64_t kv_sensitivity_bytes(
    const models::Setup& setup,
    const std::vector<KvLayerOffers>& layers,
    const Calibration& calibration,
    const KvSearch& search,
    const ProbeOptions& options) {
  return probe_bytes(
      *setup.model, make_probes(setup, layers, search), calibration, options);
}

} // namespace optiq::quant
