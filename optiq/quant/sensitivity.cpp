#include "optiq/quant/sensitivity.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <span>

#include "optiq/base/error.h"
#include "optiq/io/array.h"

namespace optiq::quant {

namespace {

// Packed candidates of one module that are held at the same time.
constexpr std::uint64_t kMaxCandidateBytes = 128u << 20;
constexpr int kMaxBatchRows = 2048;
// Libraries, tokenizer and heap of the process.
constexpr std::uint64_t kProcessBytes = 64u << 20;

// A module to measure and where its influence begins.
struct Target {
  std::string name;
  std::uint64_t parameters = 0;
  bool is_embedding = false; // the input changes too
  int first_layer = 0; // n_layers for a head of its own
};

std::vector<Target> find_targets(
    const models::Model& model,
    const std::vector<std::string>& names) {
  std::map<std::string, Target> all;
  for (const models::Module& module : model.modules()) {
    Target target;
    target.name = module.name;
    target.parameters = std::uint64_t{1} * module.matrix.out_features() *
        module.matrix.in_features();
    if (module.layer >= 0) {
      target.first_layer = model.rerun_from(module.layer);
    } else if (module.name.ends_with("lm_head")) {
      target.first_layer = model.info().n_layers;
    } else {
      target.is_embedding = true;
    }
    all.emplace(module.name, target);
  }
  std::vector<Target> targets;
  for (const std::string& name : names) {
    const auto it = all.find(name);
    if (it == all.end()) {
      fail(
          ErrorKind::Internal,
          "[measure_sensitivity] {}: not a module of the loaded model",
          name);
    }
    targets.push_back(it->second);
  }
  return targets;
}

std::size_t count_tokens(const Calibration& calibration) {
  std::size_t n = 0;
  for (const auto& chunk : calibration.chunks) {
    n += chunk.size();
  }
  return n;
}

// Bytes that one row of a forward holds: about four arrays of the width of the
// widest matrix live at the same time.
std::size_t activation_row_bytes(const models::Model& model) {
  std::size_t width = 1;
  for (const models::Module& module : model.modules()) {
    if (module.layer >= 0) {
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
    const SensitivityOptions& options) {
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

std::vector<Wave> make_waves(
    const models::Model& model,
    const Calibration& calibration,
    const SensitivityOptions& options) {
  const std::size_t max_batch = batch_rows(model, options);
  // Two states per row: the present layer's input and the final one.
  const std::size_t max_wave = options.max_state_bytes /
      (2 * sizeof(float) * static_cast<std::size_t>(model.info().hidden_size));
  std::vector<Wave> waves;
  std::size_t wave_rows = 0;
  for (std::size_t i = 0; i < calibration.chunks.size(); ++i) {
    const auto& chunk = calibration.chunks[i];
    if (waves.empty() || wave_rows + chunk.size() > max_wave) {
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
  return waves;
}

std::size_t rows_of(const Wave& wave) {
  std::size_t n = 0;
  for (const Batch& batch : wave) {
    n += batch.tokens.size();
  }
  return n;
}

// Empty pasts for one forward over a batch.
class FreshContext {
 public:
  FreshContext(
      const models::Model& model,
      const Batch& batch,
      kernels::Compute compute)
      : pool_(std::make_shared<cache::BlockPool>(
            std::numeric_limits<std::size_t>::max())) {
    const auto layout = model.cache_layout(models::kv_dtype(compute));
    std::vector<nn::Segment> segments;
    int row = 0;
    for (const int rows : batch.rows) {
      sequences_.push_back(std::make_unique<cache::Sequence>(pool_, layout));
      sequences_.back()->reserve(rows);
      segments.push_back({sequences_.back().get(), row, rows, 0});
      row += rows;
    }
    context_ =
        models::make_context(model, batch.tokens, std::move(segments), compute);
  }
  const nn::ForwardContext& get() const {
    return context_;
  }

 private:
  // The batch's rows bound this pool; it needs no cap of its own.
  std::shared_ptr<cache::BlockPool> pool_;
  std::vector<std::unique_ptr<cache::Sequence>> sequences_;
  nn::ForwardContext context_;
};

// One width of the module under test.
struct Candidate {
  int bits = 0;
  std::unique_ptr<models::Model> model;
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
      const models::Model& model,
      const WeightSource& weight_of,
      const Wave& wave,
      const SensitivityOptions& options,
      SensitivityJournal& journal,
      Reporter& reporter)
      : model_(model),
        weight_of_(weight_of),
        wave_(wave),
        options_(options),
        journal_(journal),
        reporter_(reporter),
        n_layers_(model.info().n_layers) {
    first_chunk_ = wave.front().first_chunk;
    n_chunks_ = wave.back().first_chunk + wave.back().n_chunks - first_chunk_;
  }

  std::vector<int> missing_bits(const Target& target) const {
    std::vector<int> bits;
    for (const int b : options_.candidate_bits) {
      if (!journal_.has(target.name, b, first_chunk_, n_chunks_)) {
        bits.push_back(b);
      }
    }
    return bits;
  }

  void run(const std::vector<Target>& targets) {
    int last_layer = -1;
    for (const Target& target : targets) {
      if (missing_bits(target).empty()) {
        reporter_.add(units(target) * options_.candidate_bits.size());
      } else {
        last_layer = std::max(last_layer, target.first_layer);
      }
    }
    if (last_layer < 0) {
      return;
    }
    prepare_reference();
    for (int layer = 0; layer <= last_layer; ++layer) {
      for (const Target& target : targets) {
        if (target.first_layer == layer) {
          measure(target);
        }
      }
      if (layer < n_layers_) {
        advance(layer);
      }
    }
  }

 private:
  std::uint64_t units(const Target& target) const {
    return rows_of(wave_) *
        static_cast<std::uint64_t>(n_layers_ - target.first_layer + 1);
  }

  void prepare_reference() {
    const std::size_t logit_bytes = rows_of(wave_) * sizeof(float) *
        static_cast<std::size_t>(model_.info().vocab_size);
    const bool keep_logits = logit_bytes <= options_.max_logit_bytes;
    for (const Batch& batch : wave_) {
      const FreshContext context(model_, batch, options_.compute);
      states_.push_back(model_.embed(batch.tokens));
      finals_.push_back(
          models::run_layers(model_, 0, states_.back(), context.get()));
      if (keep_logits) {
        logits_.push_back(model_.logits(finals_.back(), options_.compute));
      }
      reporter_.report("reference");
    }
  }

  // The states become the input of the next layer.
  void advance(int layer) {
    for (std::size_t i = 0; i < wave_.size(); ++i) {
      if (layer + 1 == n_layers_) {
        states_[i] = finals_[i];
        continue;
      }
      const FreshContext context(model_, wave_[i], options_.compute);
      states_[i] = model_.run_layer(layer, states_[i], context.get());
    }
  }

  void measure(const Target& target) {
    const std::vector<int> bits = missing_bits(target);
    if (bits.empty()) {
      return;
    }
    reporter_.add(
        units(target) * (options_.candidate_bits.size() - bits.size()));
    std::vector<Candidate> candidates;
    std::uint64_t bytes = 0;
    for (const int b : bits) {
      const std::uint64_t size = target.parameters * b / 8;
      if (!candidates.empty() && bytes + size > kMaxCandidateBytes) {
        measure_together(target, candidates);
        candidates.clear();
        bytes = 0;
      }
      candidates.push_back(
          {b,
           with_quantized(
               model_, weight_of_, target.name, b, options_.group_size),
           {}});
      bytes += size;
    }
    measure_together(target, candidates);
  }

  void measure_together(
      const Target& target,
      std::vector<Candidate>& candidates) {
    for (std::size_t i = 0; i < wave_.size(); ++i) {
      reporter_.report(target.name);
      compare_batch(target, i, candidates);
      reporter_.add(
          wave_[i].tokens.size() * candidates.size() *
          static_cast<std::uint64_t>(n_layers_ - target.first_layer + 1));
    }
    for (const Candidate& candidate : candidates) {
      for (const double kl : candidate.kl) {
        if (!std::isfinite(kl)) {
          fail(
              ErrorKind::Corrupt,
              "[measure_sensitivity] {} at {} bits: the KL is {}, expected a "
              "number. Does the model hold NaN or infinite weights?",
              target.name,
              candidate.bits,
              kl);
        }
      }
      journal_.record(target.name, candidate.bits, first_chunk_, candidate.kl);
    }
    reporter_.report(target.name);
  }

  // Appends the batch's chunks' mean KL to every candidate.
  void compare_batch(
      const Target& target,
      std::size_t at,
      std::vector<Candidate>& candidates) {
    const Batch& batch = wave_[at];
    std::vector<mx::array> outputs;
    for (const Candidate& candidate : candidates) {
      const FreshContext context(*candidate.model, batch, options_.compute);
      outputs.push_back(models::run_layers(
          *candidate.model,
          target.first_layer,
          target.is_embedding ? candidate.model->embed(batch.tokens)
                              : states_[at],
          context.get()));
    }
    const auto n_rows = static_cast<int>(batch.tokens.size());
    const int block = block_rows(n_rows);
    std::vector<std::vector<double>> kl(candidates.size());
    for (int row = 0; row < n_rows; row += block) {
      const int n = std::min(block, n_rows - row);
      const mx::array reference = reference_logits(at, row, n);
      for (std::size_t c = 0; c < candidates.size(); ++c) {
        const auto part = kernels::kl_divergence(
            reference,
            candidates[c].model->logits(
                io::row_range(outputs[c], row, n), options_.compute));
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
        ? model_.logits(io::row_range(finals_[at], row, n), options_.compute)
        : io::row_range(logits_[at], row, n);
  }

  const models::Model& model_;
  const WeightSource& weight_of_;
  const Wave& wave_;
  const SensitivityOptions& options_;
  SensitivityJournal& journal_;
  Reporter& reporter_;
  int n_layers_;
  int first_chunk_ = 0;
  int n_chunks_ = 0;
  std::vector<mx::array> states_; // per batch [T, H], input of the layer
  std::vector<mx::array> finals_; // per batch [T, H], input of the head
  std::vector<mx::array> logits_; // per batch [T, V]; empty: recomputed
};

// Mean over tokens; the standard error is that of a ratio of sums over chunks,
// since the last chunk may be shorter.
void set_statistics(
    const Calibration& calibration,
    const SensitivityJournal& journal,
    int bits,
    artifacts::LayerSensitivity& layer) {
  double sum = 0;
  double weight = 0;
  const auto n = static_cast<int>(calibration.chunks.size());
  for (int c = 0; c < n; ++c) {
    const auto tokens = static_cast<double>(calibration.chunks[c].size());
    sum += tokens * journal.at(layer.name, bits, c);
    weight += tokens;
  }
  const double mean = sum / weight;
  layer.kl[bits] = mean;
  if (n < 2) {
    return; // one chunk says nothing about the spread
  }
  double squares = 0;
  for (int c = 0; c < n; ++c) {
    const double residual = static_cast<double>(calibration.chunks[c].size()) *
        (journal.at(layer.name, bits, c) - mean);
    squares += residual * residual;
  }
  layer.kl_stderr[bits] = std::sqrt(squares * n / (n - 1.0)) / weight;
}

// Mean KL of each chunk over the modules at one width, which says how fragile
// the chunk's text is.
std::vector<double> chunk_scales(
    const Calibration& calibration,
    const SensitivityJournal& journal,
    const std::vector<Target>& targets,
    int bits) {
  std::vector<double> scales(calibration.chunks.size(), 0.0);
  for (const Target& target : targets) {
    for (std::size_t c = 0; c < scales.size(); ++c) {
      scales[c] += journal.at(target.name, bits, static_cast<int>(c)) /
          static_cast<double>(targets.size());
    }
  }
  return scales;
}

double mean_relative_kl(
    const SensitivityJournal& journal,
    const std::string& module,
    int bits,
    const std::vector<double>& scales) {
  double sum = 0;
  for (std::size_t c = 0; c < scales.size(); ++c) {
    if (scales[c] > 0) {
      sum += journal.at(module, bits, static_cast<int>(c)) / scales[c];
    }
  }
  return sum / static_cast<double>(scales.size());
}

} // namespace

std::unique_ptr<models::Model> with_quantized(
    const models::Model& model,
    const WeightSource& weight_of,
    const std::string& module,
    int bits,
    int group_size) {
  const kernels::AffineWeights q =
      kernels::quantize_affine(weight_of(module), bits, group_size);
  return model.with_matrix(
      module,
      kernels::Matrix::quantized(
          q.weight, q.scales, q.biases, bits, group_size));
}

std::vector<artifacts::LayerSensitivity> measure_sensitivity(
    const models::Model& model,
    const WeightSource& weight_of,
    const Calibration& calibration,
    const SensitivityOptions& options,
    SensitivityJournal& journal,
    const ProgressSink& progress) {
  const std::vector<Target> targets = find_targets(model, options.modules);
  Reporter reporter(progress, sensitivity_work(model, calibration, options));
  for (const Wave& wave : make_waves(model, calibration, options)) {
    WavePass(model, weight_of, wave, options, journal, reporter).run(targets);
  }
  const std::vector<double> scales = chunk_scales(
      calibration,
      journal,
      targets,
      *std::min_element(
          options.candidate_bits.begin(), options.candidate_bits.end()));
  std::vector<artifacts::LayerSensitivity> result;
  for (const Target& target : targets) {
    artifacts::LayerSensitivity layer;
    layer.name = target.name;
    layer.parameters = target.parameters;
    for (const int bits : options.candidate_bits) {
      set_statistics(calibration, journal, bits, layer);
      layer.relative_kl[bits] =
          mean_relative_kl(journal, target.name, bits, scales);
    }
    result.push_back(std::move(layer));
  }
  return result;
}

std::uint64_t sensitivity_work(
    const models::Model& model,
    const Calibration& calibration,
    const SensitivityOptions& options) {
  std::uint64_t layers = 0;
  for (const Target& target : find_targets(model, options.modules)) {
    layers += static_cast<std::uint64_t>(
        model.info().n_layers - target.first_layer + 1);
  }
  return layers * options.candidate_bits.size() * count_tokens(calibration);
}

std::uint64_t sensitivity_bytes(
    const models::Model& model,
    const Calibration& calibration,
    const SensitivityOptions& options) {
  const std::uint64_t tokens = count_tokens(calibration);
  const auto hidden = static_cast<std::uint64_t>(model.info().hidden_size);
  const auto vocab = static_cast<std::uint64_t>(model.info().vocab_size);
  std::uint64_t largest = 0;
  for (const Target& target : find_targets(model, options.modules)) {
    largest = std::max(largest, target.parameters);
  }
  const std::uint64_t rows =
      std::min<std::uint64_t>(tokens, batch_rows(model, options));
  // A candidate exists twice for a moment: as MLX stores it, and packed.
  const std::uint64_t candidates = std::max(
      largest,
      std::min(kMaxCandidateBytes, largest * options.candidate_bits.size()));
  return std::min<std::uint64_t>(
             options.max_state_bytes, tokens * 2 * sizeof(float) * hidden) +
      std::min<std::uint64_t>(
             options.max_logit_bytes, tokens * sizeof(float) * vocab) +
      rows * activation_row_bytes(model) +
      std::min<std::uint64_t>(
             options.max_logit_bytes / 2, 2 * rows * sizeof(float) * vocab) +
      2 * candidates + kProcessBytes;
}

} // namespace optiq::quant
