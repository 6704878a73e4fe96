#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "optiq/artifacts/kv_config.h"
#include "optiq/base/progress.h"
#include "optiq/models/setup.h"
#include "optiq/quant/calibration.h"
#include "optiq/quant/probes.h"

/** How much the model's output suffers when one layer's K/V cache alone is
 * quantized: KL(reference || quantized) in nats, the mean over every position
 * of every chunk. */
namespace optiq::quant {

/** Which caches may be chosen. */
struct KvSearch {
  std::vector<artifacts::KvMethod> methods = {artifacts::KvMethod::Affine};
  std::vector<double> candidate_bits = {4, 8};
  /** Keys and values are measured one by one and may get other widths. */
  bool split = false;
  /** What no candidate changes: group size, rotation, seed. */
  artifacts::KvCodec codec;
};

/** Throws InvalidInput for an empty list or a group size that affine lacks;
 * sorts the widths and drops what is given twice. */
void validate(KvSearch& search);

/** One method at one width, as one layer can have it. */
struct KvOffer {
  artifacts::KvMethod method = artifacts::KvMethod::Affine;
  double bits = 0;
  /** Of one side (keys, values) in a block of 64 tokens, as allocated. */
  std::uint64_t key_bytes = 0;
  std::uint64_t value_bytes = 0;
};

/** A layer with a K/V cache of its own, and what it may become. */
struct KvLayerOffers {
  int layer_idx = 0;
  std::string layer_name; // "model.layers.3"
  int n_kv_heads = 0;
  int head_dim = 0;
  std::uint64_t dense_bytes = 0; // of a block in bf16
  std::vector<KvOffer> offers; // empty: no method has its shape
  std::map<double, std::string> refusals; // by width: why not, per method
};

/** Every layer with a cache of its own, by index. A width that one method
 * lacks is offered by the other. Throws InvalidInput where there is no such
 * layer, Unsupported, with the reason, for a width that no layer can have. */
std::vector<KvLayerOffers> kv_offers(
    const models::Model& model,
    const KvSearch& search);

/** The cache of a layer at these widths (0: the side stays dense). */
artifacts::KvLayer kv_layer(
    const KvSearch& search,
    int layer_idx,
    artifacts::KvMethod method,
    double key_bits,
    double value_bits);

/** One layer as kv_sensitivity.json lists it, and per candidate the mean over
 * chunks of the chunk's KL / the chunk's scale, which is its mean KL over the
 * layers at the narrowest width of the first method. */
struct KvMeasured {
  artifacts::KvLayerSensitivity layer;
  std::vector<double> relative_kl;
};

/** One entry per layer that has offers. Measures what the journal lacks;
 * reports stage "sensitivity". Throws InvalidInput when no cache has any
 * effect. */
std::vector<KvMeasured> measure_kv_sensitivity(
    const models::Setup& setup,
    const std::vector<KvLayerOffers>& layers,
    const Calibration& calibration,
    const KvSearch& search,
    const ProbeOptions& options,
    SensitivityJournal& journal,
    const ProgressSink& progress);

/** As probe_bytes of that measurement. */
std::uint64_t kv_sensitivity_bytes(
    const models::Setup& setup,
    const std::vector<KvLayerOffers>& layers,
    const Calibration& calibration,
    const KvSearch& search,
    const ProbeOptions& options);

} // namespace optiq::quant
