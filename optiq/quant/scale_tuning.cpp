#include "optiq/quant/scale_tuning.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <utility>
#include <vector>

#include "optiq/artifacts/module_id.h"
#include "optiq/base/error.h"
#include "optiq/kernels/affine_codes.h"
#include "optiq/kernels/gradients.h"
#include "optiq/models/forward.h"
#include "optiq/quant/gradient_pass.h"
#include "optiq/quant/inventory.h"
#include "optiq/train/adamw.h"
#include "optiq/train/random.h"

namespace optiq::quant {
namespace {

namespace mx = mlx::core;

constexpr int kEvaluations = 10; // of the held-out chunks
constexpr int kLogitRows = 64; // that are compared at once
// Of a chunk's KL: what is less is rounding, and no chunk counts without end.
constexpr double kLeastKl = 1e-9;

/** One of the two numbers of every group, with Adam's means. */
struct Learned {
  std::vector<float> values; // from 0
  std::vector<float> gradient;
  std::vector<float> mean;
  std::vector<float> square;

  explicit Learned(std::size_t n)
      : values(n), gradient(n), mean(n), square(n) {}

  void step(float learning_rate, int number) {
    train::adamw_step(
        {values, mean, square},
        gradient,
        1.f,
        learning_rate,
        number,
        {.weight_decay = 0.f});
  }
};

/** A matrix that is tuned. */
class Target {
 public:
  Target(std::string name, kernels::AffineCodes codes)
      : name_(std::move(name)),
        codes_(std::move(codes)),
        start_(codes_.scales()),
        scale_(start_.scales.size()),
        middle_(start_.scales.size()),
        spread_(static_cast<float>((1 << codes_.bits()) - 1) / 4.f) {}

  const std::string& name() const {
    return name_;
  }

  kernels::AffineWeights weights() const {
    kernels::AffineScales now = start_;
    for (std::size_t g = 0; g < now.scales.size(); ++g) {
      now.scales[g] *= 1.f + scale_.values[g];
      now.middles[g] += start_.scales[g] * spread_ * middle_.values[g];
    }
    return codes_.with_scales(now);
  }

  kernels::Matrix matrix(
      kernels::Device& device,
      const kernels::AffineWeights& of) const {
    return device.quantized(
        of.weight, of.scales, of.biases, codes_.bits(), codes_.group_size());
  }

  const kernels::AffineWeights& untuned() const {
    return codes_.weights();
  }

  void begin_step() {
    const std::size_t n = start_.scales.size();
    sums_ = {std::vector<float>(n), std::vector<float>(n)};
  }

  void add_gradient(
      std::span<const int> rows,
      std::span<const float> gradient) {
    codes_.add_gradient(rows, gradient, sums_);
  }

  void finish_step(float learning_rate, int number) {
    for (std::size_t g = 0; g < start_.scales.size(); ++g) {
      scale_.gradient[g] = sums_.scales[g] * start_.scales[g];
      middle_.gradient[g] = sums_.middles[g] * start_.scales[g] * spread_;
    }
    scale_.step(learning_rate, number);
    middle_.step(learning_rate, number);
  }

 private:
  std::string name_;
  kernels::AffineCodes codes_;
  kernels::AffineScales start_;
  kernels::AffineScales sums_; // of a step's gradients
  Learned scale_; // u
  Learned middle_; // v
  float spread_;
};

/** KL of each of some chunks. */
using ChunkKl = std::map<std::size_t, double>;

double mean_of(const ChunkKl& kl) {
  double sum = 0;
  for (const auto& [chunk, value] : kl) {
    sum += value;
  }
  return sum / static_cast<double>(kl.size());
}

/** Of log KL to that before the tuning. */
double mean_log_ratio(const ChunkKl& kl, const ChunkKl& before) {
  double sum = 0;
  for (const auto& [chunk, value] : kl) {
    sum += std::log(
        std::max(value, kLeastKl) / std::max(before.at(chunk), kLeastKl));
  }
  return sum / static_cast<double>(kl.size());
}

/** One tuning. */
class Tuner {
 public:
  Tuner(
      const models::Setup& reference,
      const Calibration& calibration,
      const TuningOptions& options,
      const ProgressSink& progress)
      : reference_(reference),
        device_(reference.model->device()),
        chunks_(calibration.chunks),
        options_(options),
        progress_(progress),
        recomputes_layers_(!keeps_layers(
            *reference.model,
            calibration,
            options.max_kept_bytes)) {
    for (std::size_t c = 0; c < chunks_.size(); ++c) {
      (calibration.is_held_out(c) ? held_out_ : training_).push_back(c);
    }
  }

  void add_target(std::string name, kernels::AffineCodes codes) {
    targets_.emplace_back(std::move(name), std::move(codes));
  }

  TuningResult run() {
    report(0, "full precision");
    for (const auto& chunk : chunks_) {
      models::Forward forward(reference_);
      states_.push_back(forward.add_fresh(chunk).hidden_states());
    }
    report(0, "before");
    std::vector<kernels::AffineWeights> best;
    for (const Target& target : targets_) {
      best.push_back(target.untuned());
    }
    models::Setup setup = setup_of(best);
    before_ = kl_of(setup, training_);
    const ChunkKl before = kl_of(setup, held_out_);
    TuningResult result{
        .scores = {.kl_before = mean_of(before), .kl_after = mean_of(before)},
        .weights = {}};
    double best_ratio = 0;
    const int interval = std::max(1, options_.steps / kEvaluations);
    for (int step = 1; step <= options_.steps; ++step) {
      report(
          step - 1, fmt::format("held-out KL {:.4g}", result.scores.kl_after));
      learn(setup, step);
      const std::vector<kernels::AffineWeights> now = weights();
      setup = setup_of(now);
      if (step % interval != 0 && step != options_.steps) {
        continue;
      }
      const ChunkKl kl = kl_of(setup, held_out_);
      const double ratio = mean_log_ratio(kl, before);
      if (ratio < best_ratio) {
        best_ratio = ratio;
        best = now;
        result.scores.best_step = step;
        result.scores.kl_after = mean_of(kl);
      }
    }
    report(options_.steps, "");
    for (std::size_t i = 0; result.scores.best_step > 0 && i < best.size();
         ++i) {
      result.weights.emplace(targets_[i].name(), best[i]);
    }
    return result;
  }

 private:
  std::vector<kernels::AffineWeights> weights() const {
    std::vector<kernels::AffineWeights> all;
    for (const Target& target : targets_) {
      all.push_back(target.weights());
    }
    return all;
  }

  models::Setup setup_of(
      const std::vector<kernels::AffineWeights>& weights) const {
    models::MatricesByName matrices;
    for (std::size_t i = 0; i < targets_.size(); ++i) {
      matrices.emplace(
          targets_[i].name(), targets_[i].matrix(device_, weights[i]));
    }
    return reference_.with_model(reference_.model->with_matrices(matrices));
  }

  ChunkKl kl_of(const models::Setup& setup, std::span<const std::size_t> chunks)
      const {
    ChunkKl kl;
    for (const std::size_t chunk : chunks) {
      models::Forward forward(setup);
      const mx::array found = forward.add_fresh(chunks_[chunk]).hidden_states();
      double sum = 0;
      const int n = found.shape(0);
      for (int at = 0; at < n; at += kLogitRows) {
        const int rows = std::min(kLogitRows, n - at);
        const std::vector<double> values = device_.kl_divergence(
            expected_logits(chunk, at, rows),
            models::logits_of(setup, device_.row_range(found, at, rows)));
        sum = std::accumulate(values.begin(), values.end(), sum);
      }
      if (!std::isfinite(sum)) {
        fail(
            ErrorKind::Corrupt,
            "[tune_scales] the KL of the quantized model is {}, expected a "
            "number. Does the model hold NaN or infinite weights?",
            sum);
      }
      kl.emplace(chunk, sum / n);
    }
    return kl;
  }

  mx::array expected_logits(std::size_t chunk, int first, int rows) const {
    return models::logits_of(
        reference_, device_.row_range(states_[chunk], first, rows));
  }

  /** The chunk at a place of an endless text: all of them in a new order, over
   * and over. */
  std::size_t chunk_at(std::uint64_t place) const {
    const std::uint64_t round = place / training_.size();
    std::vector<std::pair<std::uint64_t, std::size_t>> order;
    for (const std::size_t chunk : training_) {
      order.emplace_back(
          train::random_bits(options_.seed, round, chunk), chunk);
    }
    std::sort(order.begin(), order.end());
    return order[place % training_.size()].second;
  }

  void learn(const models::Setup& setup, int step) {
    std::map<const kernels::MatrixStorage*, Target*> by_storage;
    std::map<std::string, Target*> by_name;
    for (Target& target : targets_) {
      target.begin_step();
      by_name.emplace(target.name(), &target);
    }
    for (const models::Module& module : setup.model->modules()) {
      const auto found = by_name.find(module.name);
      if (found != by_name.end()) {
        by_storage.emplace(&module.matrix.storage(), found->second);
      }
    }
    train::Backpropagation backpropagation(
        setup, {.recomputes_layers = recomputes_layers_});
    const int n = options_.batch_chunks;
    for (int i = 0; i < n; ++i) {
      learn_chunk(
          backpropagation,
          by_storage,
          chunk_at(static_cast<std::uint64_t>(step - 1) * n + i));
    }
    const float rate = train::learning_rate_at(
        {.peak = options_.learning_rate, .total_steps = options_.steps}, step);
    for (Target& target : targets_) {
      target.finish_step(rate, step);
    }
  }

  void learn_chunk(
      train::Backpropagation& backpropagation,
      const std::map<const kernels::MatrixStorage*, Target*>& by_storage,
      std::size_t chunk) {
    const std::vector<std::int32_t>& tokens = chunks_[chunk];
    const double weight = 1.0 /
        (static_cast<double>(tokens.size()) * options_.batch_chunks *
         std::max(before_.at(chunk), kLeastKl));
    const train::Example example{
        .tokens = tokens,
        .labels = tokens,
        .weights =
            std::vector<float>(tokens.size(), static_cast<float>(weight))};
    backpropagation.run(
        {&example, 1},
        {},
        {.visitor =
             [&](const train::WeightUse& use) {
               const auto found = by_storage.find(&use.weight.storage());
               if (found != by_storage.end()) {
                 for_gradient_rows(
                     device_,
                     use,
                     [&](std::span<const int> rows,
                         std::span<const float> gradient) {
                       found->second->add_gradient(rows, gradient);
                     });
               }
             },
         .loss =
             [&](const mx::array& logits,
                 int first_row,
                 std::span<const float> weights) {
               return device_.gradients().kl_divergence(
                   expected_logits(chunk, first_row, logits.shape(0)),
                   logits,
                   weights);
             }});
  }

  void report(int step, const std::string& detail) const {
    if (progress_) {
      progress_(
          {"tuning",
           static_cast<std::uint64_t>(step),
           static_cast<std::uint64_t>(options_.steps),
           detail});
    }
  }

  const models::Setup& reference_;
  kernels::Device& device_;
  const std::vector<std::vector<std::int32_t>>& chunks_;
  const TuningOptions& options_;
  const ProgressSink& progress_;
  bool recomputes_layers_;
  std::vector<std::size_t> training_; // chunks
  std::vector<std::size_t> held_out_;
  std::vector<Target> targets_;
  std::vector<mx::array> states_; // by chunk [T, hidden], of the reference
  ChunkKl before_; // of the training chunks
};

} // namespace

TuningResult tune_scales(
    const models::Setup& reference,
    const models::Checkpoint& checkpoint,
    std::span<const artifacts::LayerBits> layers,
    const Rounder& rounder,
    const Calibration& calibration,
    const TuningOptions& options,
    const ProgressSink& progress) {
  if (calibration.chunks.size() < 2) {
    fail(
        ErrorKind::InvalidInput,
        "[tune_scales] calibration: found {} chunks, expected two: one to learn "
        "from and one to stop by. Raise --n-calibration or take a longer text.",
        calibration.chunks.size());
  }
  Tuner tuner(reference, calibration, options, progress);
  for (const artifacts::LayerBits& layer : layers) {
    const models::CheckpointTensor& weight = weight_of(checkpoint, layer.name);
    tuner.add_target(
        layer.name,
        {rounder(weight, layer.bits, layer.group_size),
         layer.bits,
         layer.group_size});
    weight.drop();
  }
  return tuner.run();
}

Rounder tuned_rounder(
    std::map<std::string, kernels::AffineWeights> weights,
    Rounder rounder) {
  return [weights = std::make_shared<
              const std::map<std::string, kernels::AffineWeights>>(
              std::move(weights)),
          rounder = std::move(rounder)](
             const models::CheckpointTensor& weight, int bits, int group_size) {
    const auto found =
        weights->find(artifacts::split_tensor_name(weight.name).module);
    return found != weights->end() ? found->second
                                   : rounder(weight, bits, group_size);
  };
}

std::uint64_t tuning_work(
    const models::Model& model,
    const Calibration& calibration,
    const TuningOptions& options) {
  const std::uint64_t layers = model.info().n_layers + 1;
  const std::uint64_t n_chunks = calibration.chunks.size();
  // Of the reference and before, of the held-out ones, and of the steps.
  const std::uint64_t chunks = 2 * n_chunks +
      std::min(options.steps, kEvaluations) * (n_chunks / 4 + 1) +
      kForwardsOfPass *
          static_cast<std::uint64_t>(options.steps * options.batch_chunks);
  return chunks * layers * calibration.n_tokens() / n_chunks;
}

std::uint64_t tuning_bytes(
    const models::Model& model,
    const Calibration& calibration,
    std::span<const artifacts::LayerBits> layers,
    const TuningOptions& options) {
  // Of a group: what it was and is learned, with gradients and means; scale and
  // bias as they are stored, now and at their best.
  constexpr std::uint64_t kGroupBytes =
      12 * sizeof(float) + 6 * sizeof(std::uint32_t); // 72
  std::uint64_t bytes = 0;
  for (const artifacts::LayerBits& layer : layers) {
    // Codes as they are stored, and packed for the device: of two models, as
    // the next one is made.
    bytes += 3 * layer.parameters * layer.bits / 8 +
        layer.parameters / layer.group_size * kGroupBytes;
  }
  return bytes +
      gradient_pass_bytes(model, calibration, options.max_kept_bytes) +
      3 * sizeof(float) * kGradientTile +
      calibration.n_tokens() * model.info().hidden_size * sizeof(float);
}

} // namespace optiq::quant
