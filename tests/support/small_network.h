#pragma once

#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <mlx/ops.h>

#include "optiq/io/array.h"
#include "optiq/kernels/cpu/block_memory.h"
#include "optiq/models/model.h"

namespace optiq::testing {

namespace mx = mlx::core;

/** Row-major values of a matrix, for arithmetic written out in a test. */
struct Table {
  int rows = 0;
  int columns = 0;
  std::vector<float> values;

  const float* row(int i) const {
    return values.data() + static_cast<std::size_t>(i) * columns;
  }
};

/** Normal values, rounded to bfloat16. */
inline mx::array
random_weight(int rows, int columns, float scale, std::mt19937& random) {
  std::normal_distribution<float> normal(0.f, scale);
  mx::array w = io::make_array({rows, columns}, mx::float32);
  for (float& value : io::mutable_floats(w)) {
    value = normal(random);
  }
  return io::materialize(mx::astype(w, mx::bfloat16));
}

inline Table table_of(const kernels::Matrix& matrix) {
  std::vector<std::int32_t> ids(matrix.out_features());
  std::iota(ids.begin(), ids.end(), 0);
  const mx::array rows = kernels::cpu_device().embed(ids, matrix);
  const auto values = io::floats(rows);
  return {
      matrix.out_features(),
      matrix.in_features(),
      {values.begin(), values.end()}};
}

/**
 * A real, small network in plain loops, so that a test can compute what it
 * computes in double precision. Per layer, with a running sum r of the
 * layer's inputs (its recurrent state):
 *   x <- x + W tanh(x + r / 8)
 * Modules: "embed_tokens", "layers.<i>.mlp", "lm_head". Counts its calls.
 */
class SmallNetwork final : public models::Model {
 public:
  struct Counters {
    int layers = 0; // calls of run_layer
    int logits = 0;
  };

  SmallNetwork(
      int vocab_size,
      int hidden,
      std::vector<mx::array> layers,
      mx::array embedding,
      mx::array head)
      : counters_(std::make_shared<Counters>()) {
    info_.model_type = "small_network";
    info_.vocab_size = vocab_size;
    info_.hidden_size = hidden;
    info_.n_layers = static_cast<int>(layers.size());
    info_.max_positions = 1 << 20;
    add("embed_tokens", std::move(embedding));
    for (std::size_t i = 0; i < layers.size(); ++i) {
      add("layers." + std::to_string(i) + ".mlp", layers[i]);
    }
    add("lm_head", std::move(head));
  }

  const models::ModelInfo& info() const override {
    return info_;
  }
  const Counters& counters() const {
    return *counters_;
  }
  const Table& table(std::size_t module) const {
    return *tables_[module];
  }
  std::vector<cache::LayerFormat> dense_layout(mx::Dtype) const override {
    return std::vector<cache::LayerFormat>(
        info_.n_layers,
        cache::RecurrentFormat{
            .conv_floats = 1,
            .state_floats = static_cast<std::size_t>(info_.hidden_size)});
  }

  mx::array embed(std::span<const std::int32_t> tokens) const override {
    const int h = info_.hidden_size;
    mx::array x =
        io::make_array({static_cast<int>(tokens.size()), h}, mx::float32);
    auto* to = io::mutable_floats(x).data();
    for (const std::int32_t token : tokens) {
      to = std::copy_n(tables_.front()->row(token), h, to);
    }
    return x;
  }

  mx::array run_layer(
      int layer,
      const mx::array& x,
      const nn::ForwardContext& context) const override {
    ++counters_->layers;
    const int h = info_.hidden_size;
    const Table& w = *tables_[layer + 1];
    mx::array y = io::make_array(x.shape(), mx::float32);
    std::vector<float> hidden(h);
    for (const nn::Segment& segment : context.segments) {
      auto* state = reinterpret_cast<float*>(
          kernels::cpu::address_of(segment.sequence->blocks(layer).front()));
      for (int t = segment.first_row; t < segment.first_row + segment.rows;
           ++t) {
        const float* from = io::floats(x).data() + t * h;
        float* to = io::mutable_floats(y).data() + t * h;
        for (int i = 0; i < h; ++i) {
          state[i] += from[i];
          hidden[i] = std::tanh(from[i] + state[i] / 8);
        }
        for (int o = 0; o < h; ++o) {
          to[o] = from[o] +
              std::inner_product(hidden.begin(), hidden.end(), w.row(o), 0.f);
        }
      }
    }
    return y;
  }

  mx::array logits(const mx::array& x, const nn::ForwardContext&)
      const override {
    ++counters_->logits;
    const Table& w = *tables_.back();
    mx::array y = io::make_array({x.shape(0), w.rows}, mx::float32);
    for (int t = 0; t < x.shape(0); ++t) {
      const float* from = io::floats(x).data() + t * w.columns;
      for (int o = 0; o < w.rows; ++o) {
        io::mutable_floats(y)[t * w.rows + o] =
            std::inner_product(from, from + w.columns, w.row(o), 0.f);
      }
    }
    return y;
  }

  std::vector<models::Module> modules() const override {
    return modules_;
  }

  std::unique_ptr<models::Model> with_matrices(
      const models::MatricesByName& matrices) const override {
    auto changed = std::make_unique<SmallNetwork>(*this);
    for (std::size_t i = 0; i < modules_.size(); ++i) {
      const auto found = matrices.find(modules_[i].name);
      if (found != matrices.end()) {
        changed->modules_[i].matrix = found->second;
        changed->tables_[i] = std::make_shared<Table>(table_of(found->second));
      }
    }
    return changed;
  }

 private:
  void add(const std::string& name, mx::array weight) {
    const auto matrix = kernels::cpu_device().dense(weight);
    modules_.push_back({name, artifacts::module_id(name), matrix});
    tables_.push_back(std::make_shared<Table>(table_of(matrix)));
  }

  models::ModelInfo info_;
  std::vector<models::Module> modules_;
  std::vector<std::shared_ptr<const Table>> tables_; // of modules_
  std::shared_ptr<Counters> counters_; // shared by the changed copies
};

} // namespace optiq::testing
