#include "optiq/quant/probes.h"

#include <algorithm>
#include <cmath>

#include "optiq/base/error.h"
#include "optiq/base/ram_limit.h"
#include "optiq/base/system.h"
#include "optiq/models/forward.h"

namespace optiq::quant {
namespace {

namespace mx = mlx::core;

constexpr int kMaxBatchRows = 2048;
// However large the machine: a conversion takes a model and 1 GB at most.
constexpr std::size_t kMostLogitBytes = std::size_t{512} << 20;
// Tokenizer, journal and what the heap keeps.
constexpr std::uint64_t kHeapBytes = 8u << 20;

// Bytes that one row of a forward holds: about four arrays of the width of the
// widest matrix live at the same time.
std::size_t activation_row_bytes(const models::Model& model) {
  std::size_t width = 1;
  for (const models::Module& module : model.modules()) {
    if (module.id.layer >= 0) {
      width = std::max<std::size_t>(
          {width,
           static_cast<std::size_t>(module.matrix.out_features()),
           static_cast<std::size_t>(module.matrix.in_features())});
    }
  }
  return 4 * sizeof(float) * width;
}

// Rows of one forward: as many as the bound allows, at least one chunk.
std::size_t batch_rows(
    const models::Model& model,
    const ProbeOptions& options) {
  return std::clamp<std::size_t>(
      options.max_activation_bytes / activation_row_bytes(model),
      1,
      kMaxBatchRows);
}

// Consecutive chunks that share a forward.
struct Batch {
  int first_chunk = 0;
  int n_chunks = 0;
  std::vector<std::int32_t> tokens;
  std::vector<int> rows; // per chunk
};

// Consecutive chunks whose hidden states are held together.
using Wave = std::vector<Batch>;

/** Adds the waves of a range, which has no chunks in common with others. */
void add_waves(
    const models::Model& model,
    const Calibration& calibration,
    const ProbeOptions& options,
    const ChunkRange& range,
    std::vector<Wave>& waves) {
  const std::size_t max_batch = batch_rows(model, options);
  // Two states per row: the present layer's input and the final one.
  const std::size_t max_wave = options.max_state_bytes /
      (2 * sizeof(float) * static_cast<std::size_t>(model.info().hidden_size));
  std::size_t wave_rows = 0;
  for (std::size_t i = range.first; i < range.end; ++i) {
    const auto& chunk = calibration.chunks[i];
    if (i == range.first || wave_rows + chunk.size() > max_wave) {
      waves.emplace_back();
      wave_rows = 0;
    }
    Wave& wave = waves.back();
    if (wave.empty() || wave.back().tokens.size() + chunk.size() > max_batch) {
      wave.push_back(
          {.first_chunk = static_cast<int>(i),
           .n_chunks = 0,
           .tokens = {},
           .rows = {}});
    }
    Batch& batch = wave.back();
    batch.tokens.insert(batch.tokens.end(), chunk.begin(), chunk.end());
    batch.rows.push_back(static_cast<int>(chunk.size()));
    ++batch.n_chunks;
    wave_rows += chunk.size();
  }
}

std::size_t rows_of(const Wave& wave) {
  std::size_t n = 0;
  for (const Batch& batch : wave) {
    n += batch.tokens.size();
  }
  return n;
}

// One variant of the probe at work.
struct Candidate {
  int bits = 0;
  models::Setup setup;
  std::vector<double> kl; // mean per chunk of the wave
};

class Reporter {
 public:
  Reporter(const ProgressSink& sink, std::uint64_t total)
      : sink_(sink), total_(total) {}
  void add(std::uint64_t units) {
    done_ += units;
  }
  void report(const std::string& detail) const {
    if (sink_) {
      sink_({"sensitivity", done_, total_, detail});
    }
  }

 private:
  const ProgressSink& sink_;
  std::uint64_t total_;
  std::uint64_t done_ = 0;
};

// The measurement of one wave of chunks.
class WavePass {
 public:
  WavePass(
      const models::Setup& setup,
      const Wave& wave,
      const ProbeOptions& options,
      SensitivityJournal& journal,
      Reporter& reporter)
      : setup_(setup),
        model_(*setup.model),
        wave_(wave),
        options_(options),
        journal_(journal),
        reporter_(reporter),
        n_layers_(model_.info().n_layers) {
    first_chunk_ = wave.front().first_chunk;
    n_chunks_ = wave.back().first_chunk + wave.back().n_chunks - first_chunk_;
  }

  void run(std::span<const Probe> probes) {
    int last_layer = -1;
    for (const Probe& probe : probes) {
      if (missing(probe).empty()) {
        reporter_.add(units(probe) * probe.variants.size());
      } else {
        last_layer = std::max(last_layer, probe.first_layer);
      }
    }
    if (last_layer < 0) {
      return;
    }
    prepare_reference();
    for (int layer = 0; layer <= last_layer; ++layer) {
      for (const Probe& probe : probes) {
        if (probe.first_layer == layer) {
          measure(probe);
        }
      }
      if (layer < n_layers_) {
        advance(layer);
      }
    }
  }

 private:
  std::vector<const Variant*> missing(const Probe& probe) const {
    std::vector<const Variant*> variants;
    for (const Variant& variant : probe.variants) {
      if (!journal_.has(probe.name, variant.bits, first_chunk_, n_chunks_)) {
        variants.push_back(&variant);
      }
    }
    return variants;
  }

  std::uint64_t units(const Probe& probe) const {
    return rows_of(wave_) *
        static_cast<std::uint64_t>(n_layers_ - probe.first_layer + 1);
  }

  void prepare_reference() {
    const std::size_t logit_bytes = rows_of(wave_) * sizeof(float) *
        static_cast<std::size_t>(model_.info().vocab_size);
    const bool keep_logits = logit_bytes <= options_.max_logit_bytes;
    for (const Batch& batch : wave_) {
      states_.push_back(model_.embed(batch.tokens));
      finals_.push_back(
          run_layers(setup_, batch, 0, n_layers_, states_.back()));
      if (keep_logits) {
        logits_.push_back(models::logits_of(setup_, finals_.back()));
      }
      reporter_.report("reference");
    }
  }

  // Layers [first, end) on what layer `first` reads, from empty pasts.
  mx::array run_layers(
      const models::Setup& setup,
      const Batch& batch,
      int first,
      int end,
      const mx::array& x) const {
    models::Forward forward(setup);
    std::span<const std::int32_t> rest = batch.tokens;
    for (const int rows : batch.rows) {
      forward.add_fresh(rest.first(rows));
      rest = rest.subspan(rows);
    }
    return forward.run_layers(first, end, x);
  }

  // The states become the input of the next layer.
  void advance(int layer) {
    for (std::size_t i = 0; i < wave_.size(); ++i) {
      if (layer + 1 == n_layers_) {
        states_[i] = finals_[i];
        continue;
      }
      states_[i] = run_layers(setup_, wave_[i], layer, layer + 1, states_[i]);
    }
  }

  void measure(const Probe& probe) {
    const std::vector<const Variant*> variants = missing(probe);
    if (variants.empty()) {
      return;
    }
    reporter_.add(units(probe) * (probe.variants.size() - variants.size()));
    std::vector<Candidate> candidates;
    std::uint64_t bytes = 0;
    for (const Variant* variant : variants) {
      if (!candidates.empty() &&
          bytes + variant->bytes > options_.max_variant_bytes) {
        measure_together(probe, candidates);
        candidates.clear();
        bytes = 0;
      }
      candidates.push_back({variant->bits, variant->make(), {}});
      bytes += variant->bytes;
    }
    measure_together(probe, candidates);
  }

  void measure_together(
      const Probe& probe,
      std::vector<Candidate>& candidates) {
    for (std::size_t i = 0; i < wave_.size(); ++i) {
      reporter_.report(probe.name);
      compare_batch(probe, i, candidates);
      reporter_.add(
          wave_[i].tokens.size() * candidates.size() *
          static_cast<std::uint64_t>(n_layers_ - probe.first_layer + 1));
    }
    for (const Candidate& candidate : candidates) {
      for (const double kl : candidate.kl) {
        if (!std::isfinite(kl)) {
          fail(
              ErrorKind::Corrupt,
              "[measure_probes] {} at {} bits: the KL is {}, expected a "
              "number. Does the model hold NaN or infinite weights?",
              probe.name,
              candidate.bits,
              kl);
        }
      }
      journal_.record(probe.name, candidate.bits, first_chunk_, candidate.kl);
    }
    reporter_.report(probe.name);
  }

  // Appends the batch's chunks' mean KL to every candidate.
  void compare_batch(
      const Probe& probe,
      std::size_t at,
      std::vector<Candidate>& candidates) {
    const Batch& batch = wave_[at];
    std::vector<mx::array> outputs;
    outputs.reserve(candidates.size());
    for (const Candidate& candidate : candidates) {
      outputs.push_back(run_layers(
          candidate.setup,
          batch,
          probe.first_layer,
          n_layers_,
          probe.changes_embedding ? candidate.setup.model->embed(batch.tokens)
                                  : states_[at]));
    }
    const auto n_rows = static_cast<int>(batch.tokens.size());
    const int block = block_rows(n_rows);
    std::vector<std::vector<double>> kl(candidates.size());
    for (int row = 0; row < n_rows; row += block) {
      const int n = std::min(block, n_rows - row);
      const mx::array reference = reference_logits(at, row, n);
      for (std::size_t c = 0; c < candidates.size(); ++c) {
        const auto part = model_.device().kl_divergence(
            reference,
            models::logits_of(
                candidates[c].setup,
                model_.device().row_range(outputs[c], row, n)));
        kl[c].insert(kl[c].end(), part.begin(), part.end());
      }
    }
    for (std::size_t c = 0; c < candidates.size(); ++c) {
      append_chunk_means(batch, kl[c], candidates[c].kl);
    }
  }

  static void append_chunk_means(
      const Batch& batch,
      const std::vector<double>& kl,
      std::vector<double>& means) {
    std::size_t row = 0;
    for (const int rows : batch.rows) {
      double sum = 0;
      for (int i = 0; i < rows; ++i) {
        sum += kl[row++];
      }
      means.push_back(sum / rows);
    }
  }

  // Rows of logits made at a time: two arrays of them, in a quarter of the
  // bound each.
  int block_rows(int n_rows) const {
    const std::size_t row_bytes =
        sizeof(float) * static_cast<std::size_t>(model_.info().vocab_size);
    const auto fit = std::clamp<std::size_t>(
        options_.max_logit_bytes / (4 * row_bytes), 1, kMaxBatchRows);
    return std::min(n_rows, static_cast<int>(fit));
  }

  mx::array reference_logits(std::size_t at, int row, int n) const {
    return logits_.empty()
        ? models::logits_of(
              setup_, model_.device().row_range(finals_[at], row, n))
        : model_.device().row_range(logits_[at], row, n);
  }

  const models::Setup& setup_;
  const models::Model& model_;
  const Wave& wave_;
  const ProbeOptions& options_;
  SensitivityJournal& journal_;
  Reporter& reporter_;
  int n_layers_;
  int first_chunk_ = 0;
  int n_chunks_ = 0;
  std::vector<mx::array> states_; // per batch [T, H], input of the layer
  std::vector<mx::array> finals_; // per batch [T, H], input of the head
  std::vector<mx::array> logits_; // per batch [T, V]; empty: recomputed
};

bool has_chunk(
    const SensitivityJournal& journal,
    std::span<const Probe> probes,
    std::size_t chunk) {
  return std::all_of(probes.begin(), probes.end(), [&](const Probe& probe) {
    return std::all_of(
        probe.variants.begin(),
        probe.variants.end(),
        [&](const Variant& variant) {
          return journal.has(
              probe.name, variant.bits, static_cast<int>(chunk), 1);
        });
  });
}

/** The waves of the wanted chunks that lack anything: a share of the chunks
 * that is missing costs no more than itself. */
std::vector<Wave> missing_waves(
    const models::Model& model,
    const Calibration& calibration,
    const ProbeOptions& options,
    std::span<const Probe> probes,
    const SensitivityJournal& journal) {
  std::vector<Wave> waves;
  const std::size_t end =
      std::min(options.chunks.end, calibration.chunks.size());
  for (std::size_t at = options.chunks.first; at < end; ++at) {
    ChunkRange gap{at, at};
    while (gap.end < end && !has_chunk(journal, probes, gap.end)) {
      ++gap.end;
    }
    if (gap.end > gap.first) {
      add_waves(model, calibration, options, gap, waves);
      at = gap.end;
    }
  }
  return waves;
}

} // namespace

void measure_probes(
    const models::Setup& setup,
    std::span<const Probe> probes,
    const Calibration& calibration,
    const ProbeOptions& options,
    SensitivityJournal& journal,
    const ProgressSink& progress) {
  const models::Model& model = *setup.model;
  const std::vector<Wave> waves =
      missing_waves(model, calibration, options, probes, journal);
  std::uint64_t rows = 0;
  for (const Wave& wave : waves) {
    rows += rows_of(wave);
  }
  Reporter reporter(
      progress,
      probe_work(model, probes, calibration) * rows / calibration.n_tokens());
  for (const Wave& wave : waves) {
    WavePass(setup, wave, options, journal, reporter).run(probes);
  }
}

std::uint64_t probe_work(
    const models::Model& model,
    std::span<const Probe> probes,
    const Calibration& calibration) {
  std::uint64_t layers = 0;
  for (const Probe& probe : probes) {
    layers += probe.variants.size() *
        static_cast<std::uint64_t>(
                  model.info().n_layers - probe.first_layer + 1);
  }
  return layers * calibration.n_tokens();
}

std::uint64_t probe_bytes(
    const models::Model& model,
    std::span<const Probe> probes,
    const Calibration& calibration,
    const ProbeOptions& options) {
  const std::uint64_t tokens = calibration.n_tokens();
  const auto hidden = static_cast<std::uint64_t>(model.info().hidden_size);
  const auto vocab = static_cast<std::uint64_t>(model.info().vocab_size);
  std::uint64_t candidates = 0;
  for (const Probe& probe : probes) {
    std::uint64_t largest = 0;
    std::uint64_t all = 0;
    for (const Variant& variant : probe.variants) {
      largest = std::max(largest, variant.bytes);
      all += variant.bytes;
    }
    candidates = std::max(
        {candidates,
         largest,
         std::min<std::uint64_t>(options.max_variant_bytes, all)});
  }
  const std::uint64_t rows =
      std::min<std::uint64_t>(tokens, batch_rows(model, options));
  return std::min<std::uint64_t>(
             options.max_state_bytes, tokens * 2 * sizeof(float) * hidden) +
      std::min<std::uint64_t>(
             options.max_logit_bytes, tokens * sizeof(float) * vocab) +
      rows * activation_row_bytes(model) +
      std::min<std::uint64_t>(
             options.max_logit_bytes / 2, 2 * rows * sizeof(float) * vocab) +
      // A candidate exists twice for a moment: as MLX stores it, and packed.
      2 * candidates + kHeapBytes;
}

ChunkMean mean_over_chunks(
    const Calibration& calibration,
    const SensitivityJournal& journal,
    const std::string& probe,
    int bits) {
  double sum = 0;
  double weight = 0;
  const auto n = static_cast<int>(calibration.chunks.size());
  for (int c = 0; c < n; ++c) {
    const auto tokens = static_cast<double>(calibration.chunks[c].size());
    sum += tokens * journal.at(probe, bits, c);
    weight += tokens;
  }
  const double mean = sum / weight;
  if (n < 2) {
    return {mean, 0}; // one chunk says nothing about the spread
  }
  double squares = 0;
  for (int c = 0; c < n; ++c) {
    const double residual = static_cast<double>(calibration.chunks[c].size()) *
        (journal.at(probe, bits, c) - mean);
    squares += residual * residual;
  }
  return {mean, std::sqrt(squares * n / (n - 1.0)) / weight};
}

double mean_relative_kl(
    const SensitivityJournal& journal,
    const std::string& probe,
    int bits,
    std::span<const double> scales) {
  double sum = 0;
  for (std::size_t c = 0; c < scales.size(); ++c) {
    if (scales[c] > 0) {
      sum += journal.at(probe, bits, static_cast<int>(c)) / scales[c];
    }
  }
  return sum / static_cast<double>(scales.size());
}

void fit_into_ram(ProbeOptions& options) {
  const std::size_t share = system_info().available_ram_bytes / 8;
  options.max_logit_bytes =
      std::max(options.max_logit_bytes, std::min(share, kMostLogitBytes));
  if (RamLimit::left()) {
    options.max_state_bytes = std::min(options.max_state_bytes, share);
    options.max_logit_bytes = share;
    options.max_activation_bytes =
        std::min(options.max_activation_bytes, share);
    options.max_variant_bytes = std::min(options.max_variant_bytes, share);
  }
}

} // namespace optiq::quant
