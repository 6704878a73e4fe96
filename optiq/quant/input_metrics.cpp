#include "optiq/quant/input_metrics.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "optiq/io/spilled.h"
#include "optiq/models/forward.h"
#include "optiq/quant/sensitivity_journal.h"

namespace optiq::quant {
namespace {

namespace mx = mlx::core;

// Of the rows of a chunk, how many feed the head: its product is the dearest.
constexpr int kHeadStride = 4;
// Shares of the mean second moment that are tried; the literature has 0.01.
constexpr double kDampings[] = {0.01, 0.03, 0.1, 0.3, 1.0, 3.0};
// Of embeddings that are the head too: lookups count as much.
constexpr double kTiedDamping = 1.0;

/** Layers that read the K/V of others need these in the same forward. */
bool shares_kv(const models::Model& model) {
  for (int layer = 0; layer < model.info().n_layers; ++layer) {
    if (model.rerun_from(layer) != layer) {
      return true;
    }
  }
  return false;
}

} // namespace

// One pass over the model, layer by layer.
class InputMetrics::Collection {
 public:
  Collection(
      InputMetrics& metrics,
      const models::Setup& setup,
      const InputMetricOptions& options)
      : metrics_(metrics), setup_(setup), options_(options) {}

  void run(const Calibration& calibration, const ProgressSink& progress) {
    const models::Model& model = *setup_.model;
    const int n_layers = model.info().n_layers;
    const auto report = [&](int done, const std::string& detail) {
      if (progress) {
        progress(
            {"moments",
             static_cast<std::uint64_t>(done),
             static_cast<std::uint64_t>(n_layers) + 1,
             detail});
      }
    };
    std::vector<mx::array> states; // per chunk [T, hidden]
    for (const auto& chunk : calibration.chunks) {
      states.push_back(io::spilled(model.embed(chunk)));
    }
    const bool keeps_forwards = shares_kv(model);
    for (int layer = 0; layer < n_layers; ++layer) {
      report(layer, "layer " + std::to_string(layer));
      for (std::size_t i = 0; i < states.size(); ++i) {
        if (!keeps_forwards || layer == 0) {
          forwards_.resize(keeps_forwards ? states.size() : 1);
          forwards_[keeps_forwards ? i : 0] =
              make_forward(calibration.chunks[i]);
        }
        is_held_out_ = calibration.is_held_out(i);
        states[i] = io::spilled(forwards_[keeps_forwards ? i : 0]->run_layers(
            layer, layer + 1, states[i]));
        seen_.clear();
      }
      finish_layer(0);
    }
    report(n_layers, "head");
    for (std::size_t i = 0; i < states.size(); ++i) {
      is_held_out_ = calibration.is_held_out(i);
      run_head(calibration.chunks[i], states[i]);
    }
    finish_layer(model.info().tied_head ? kTiedDamping : 0);
    report(n_layers + 1, "");
  }

 private:
  /** Second moments of what some linears read, known by the first of them. */
  struct Moments {
    std::size_t n = 0;
    std::vector<float> sums; // [n, n], on and above the diagonal
    std::vector<float> held_out; // the same of the chunks that are
    std::set<std::string> readers;
  };

  std::unique_ptr<models::Forward> make_forward(
      std::span<const std::int32_t> chunk) {
    auto forward = std::make_unique<models::Forward>(
        setup_, [this](const nn::Linear& linear, const mx::array& x) {
          see(linear, x);
        });
    forward->add_fresh(chunk);
    return forward;
  }

  void run_head(std::span<const std::int32_t> chunk, const mx::array& x) {
    std::vector<int> rows;
    for (int row = 0; row < static_cast<int>(chunk.size());
         row += kHeadStride) {
      rows.push_back(row);
    }
    make_forward(chunk)->logits(
        setup_.model->device().take_rows(x, rows), rows);
    seen_.clear();
  }

  void see(const nn::Linear& linear, const mx::array& x) {
    if (metrics_.entries_.contains(linear.name)) {
      return; // what makes inputs of layers is run with every one of them
    }
    const auto same =
        std::find_if(seen_.begin(), seen_.end(), [&](const auto& other) {
          return other.first.id() == x.id();
        });
    if (same != seen_.end()) {
      moments_[same->second].readers.insert(linear.name);
      return;
    }
    seen_.emplace_back(x, linear.name);
    Moments& moments = moments_[linear.name];
    moments.readers.insert(linear.name);
    moments.n = static_cast<std::size_t>(x.shape(-1));
    moments.sums.resize(moments.n * moments.n);
    std::vector<float>& sums =
        is_held_out_ && options_.has_factors ? moments.held_out : moments.sums;
    sums.resize(moments.n * moments.n);
    const kernels::HostRows rows = setup_.model->device().to_host(x);
    kernels::add_second_moments(rows.all(), moments.n, sums);
  }

  /** The best of kDampings on the chunks held out; nothing where no feedback is
   * as good. */
  static std::optional<double> best_damping(const Moments& moments) {
    if (moments.held_out.empty()) {
      return std::nullopt;
    }
    const auto cost = [&](const kernels::ErrorMetric& metric) {
      return kernels::cost_of_rounding(metric, moments.held_out, moments.n);
    };
    std::optional<double> best;
    double least = cost(kernels::plain_metric(moments.n));
    for (const double damping : kDampings) {
      const double found =
          cost(kernels::factored_metric(moments.sums, moments.n, damping));
      if (found < least) {
        least = found;
        best = damping;
      }
    }
    return best;
  }

  kernels::ErrorMetric metric_of(Moments& moments, double least_damping) const {
    const std::optional<double> damping =
        options_.has_factors ? best_damping(moments) : std::nullopt;
    for (std::size_t i = 0; i < moments.held_out.size(); ++i) {
      moments.sums[i] += moments.held_out[i];
    }
    moments.held_out = {};
    return damping ? kernels::factored_metric(
                         std::move(moments.sums),
                         moments.n,
                         std::max(*damping, least_damping))
                   : kernels::diagonal_metric(moments.sums, moments.n);
  }

  void finish_layer(double least_damping) {
    for (auto& [name, moments] : moments_) {
      const kernels::ErrorMetric metric = metric_of(moments, least_damping);
      Entry entry{0, moments.n, !metric.factor.empty()};
      entry.offset =
          metrics_.file_.append(std::as_bytes(std::span(metric.importance)));
      metrics_.file_.append(std::as_bytes(std::span(metric.factor)));
      for (const std::string& reader : moments.readers) {
        metrics_.entries_.emplace(reader, entry);
      }
    }
    moments_.clear();
  }

  InputMetrics& metrics_;
  const models::Setup& setup_;
  const InputMetricOptions& options_;
  std::vector<std::unique_ptr<models::Forward>> forwards_;
  std::map<std::string, Moments> moments_; // of the layer
  bool is_held_out_ = false; // what is seen now
  /** What was read in this forward, alive so that no other has its id. */
  std::vector<std::pair<mx::array, std::string>> seen_;
};

InputMetrics::InputMetrics(
    const models::Setup& setup,
    const Calibration& calibration,
    const InputMetricOptions& options,
    const ProgressSink& progress)
    : file_(scratch_folder()) {
  Collection(*this, setup, options).run(calibration, progress);
}

kernels::ErrorMetric InputMetrics::of(
    const std::string& module,
    std::size_t n_inputs) const {
  const auto found = entries_.find(module);
  if (found == entries_.end()) {
    return kernels::plain_metric(n_inputs);
  }
  const std::size_t n = found->second.n_inputs;
  kernels::ErrorMetric metric{
      std::vector<float>(n),
      std::vector<float>(found->second.has_factor ? n * n : 0)};
  const std::span importance(metric.importance);
  file_.read(found->second.offset, std::as_writable_bytes(importance));
  file_.read(
      found->second.offset + importance.size_bytes(),
      std::as_writable_bytes(std::span(metric.factor)));
  return metric;
}

std::uint64_t input_metrics_bytes(
    const models::Model& model,
    const Calibration& calibration) {
  // Two states per token for a moment, and a layer's moments: of every width
  // that its matrices read, those held out too, and both once more as a factor
  // is tried.
  std::map<int, std::set<std::uint64_t>> widths;
  for (const models::Module& module : model.modules()) {
    widths[module.id.layer].insert(
        static_cast<std::uint64_t>(module.matrix.in_features()));
  }
  std::uint64_t most = 0;
  for (const auto& [layer, inputs] : widths) {
    std::uint64_t floats = 0;
    for (const std::uint64_t n : inputs) {
      floats += 4 * n * n;
    }
    most = std::max(most, floats);
  }
  return sizeof(float) *
      (most +
       2 * calibration.n_tokens() *
           static_cast<std::uint64_t>(model.info().hidden_size));
}

} // namespace optiq::quant
