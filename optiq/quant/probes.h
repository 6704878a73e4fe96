#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "optiq/base/progress.h"
#include "optiq/models/setup.h"
#include "optiq/quant/calibration.h"
#include "optiq/quant/sensitivity_journal.h"

/**
 * How much the model's output suffers from one change of it: KL(reference ||
 * changed) in nats at every position of every chunk. Layers before the change
 * are not run again: their output is kept, and all variants of a probe share
 * it.
 */
namespace optiq::quant {

/** One way to change the model or its caches. */
struct Variant {
  int bits = 0; // tells the variants of a probe apart, in the journal too
  std::uint64_t bytes = 0; // that the changed part holds in memory
  std::function<models::Setup()> make;
};

/** A part of the model and the ways to change it. */
struct Probe {
  std::string name; // unique, in the journal too
  int first_layer = 0; // that the change touches; n_layers: only the head
  bool changes_embedding = false; // then the input is computed anew
  std::vector<Variant> variants;
};

struct ProbeOptions {
  /** Bounds of the memory used beside the weights: the hidden states kept,
   * the reference's logits, the activations of one forward, and the variants of
   * one probe that are held at the same time, one at least. */
  std::size_t max_state_bytes = std::size_t{256} << 20;
  std::size_t max_logit_bytes = std::size_t{256} << 20;
  std::size_t max_activation_bytes = std::size_t{256} << 20;
  std::size_t max_variant_bytes = std::size_t{128} << 20;
  ChunkRange chunks; // to measure
};

/** Raises max_logit_bytes where this machine has room: the reference's logits,
 * made once, save a run of its head per probe. A RamLimit lowers all bounds. */
void fit_into_ram(ProbeOptions& options);

/** Brings every variant's mean KL of every chunk into the journal; measures
 * what it lacks. Reports (stage "sensitivity") in rows times layers. Throws
 * Corrupt when a KL is not a number. */
void measure_probes(
    const models::Setup& setup,
    std::span<const Probe> probes,
    const Calibration& calibration,
    const ProbeOptions& options,
    SensitivityJournal& journal,
    const ProgressSink& progress);

/** Layer evaluations (rows x layers, the head counted as one) that a
 * measurement with an empty journal takes. */
std::uint64_t probe_work(
    const models::Model& model,
    std::span<const Probe> probes,
    const Calibration& calibration);

/** Bytes that measuring needs beside the weights. */
std::uint64_t probe_bytes(
    const models::Model& model,
    std::span<const Probe> probes,
    const Calibration& calibration,
    const ProbeOptions& options);

/** Mean over tokens, and the standard error of that ratio of sums over chunks
 * (0 for one chunk), of a variant that was measured. */
struct ChunkMean {
  double kl = 0;
  double standard_error = 0;
};
ChunkMean mean_over_chunks(
    const Calibration& calibration,
    const SensitivityJournal& journal,
    const std::string& probe,
    int bits);

/** Mean over chunks of a variant's KL / the chunk's scale; a chunk with scale 0
 * adds nothing. */
double mean_relative_kl(
    const SensitivityJournal& journal,
    const std::string& probe,
    int bits,
    std::span<const double> scales);

} // namespace optiq::quant
