#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "optiq/base/error.h"
#include "optiq/io/array.h"
#include "optiq/models/model.h"

namespace optiq::testing {

namespace mx = mlx::core;

/**
 * A model without weights: the most likely token after `token` at absolute
 * position `p` is script(token, p), with logit 1 among zeros.
 */
class ScriptedModel final : public models::Model {
 public:
  using Script = std::function<std::int32_t(std::int32_t token, int position)>;

  /** `on_forward` is called once in each forward, and may throw; `layer` is
   * what its one layer keeps, and costs. */
  ScriptedModel(
      int vocab_size,
      int max_positions,
      Script script,
      std::function<void()> on_forward = nullptr,
      cache::LayerFormat layer =
          cache::RecurrentFormat{.conv_floats = 1, .state_floats = 1})
      : script_(std::move(script)),
        on_forward_(std::move(on_forward)),
        layer_(std::move(layer)) {
    info_.model_type = "scripted";
    info_.vocab_size = vocab_size;
    info_.hidden_size = 1;
    info_.n_layers = 1;
    info_.max_positions = max_positions;
  }

  const models::ModelInfo& info() const override {
    return info_;
  }
  std::vector<cache::LayerFormat> dense_layout(mx::Dtype) const override {
    return {layer_};
  }
  mx::array embed(std::span<const std::int32_t> tokens) const override {
    auto x = io::make_array({static_cast<int>(tokens.size()), 1}, mx::float32);
    std::copy(tokens.begin(), tokens.end(), io::mutable_floats(x).begin());
    return x;
  }
  mx::array run_layer(
      int,
      const mx::array& x,
      const nn::ForwardContext& context) const override {
    if (on_forward_) {
      on_forward_();
    }
    auto y = io::make_array(x.shape(), mx::float32);
    const auto positions = kernels::positions_of(nn::segments_of(context, 0));
    for (std::size_t i = 0; i < positions.size(); ++i) {
      io::mutable_floats(y)[i] = static_cast<float>(
          script_(static_cast<std::int32_t>(io::floats(x)[i]), positions[i]));
    }
    return y;
  }
  mx::array logits(const mx::array& x, const nn::ForwardContext&)
      const override {
    auto y = io::make_array({x.shape(0), info_.vocab_size}, mx::float32);
    const auto to = io::mutable_floats(y);
    std::fill(to.begin(), to.end(), 0.f);
    for (int i = 0; i < x.shape(0); ++i) {
      to[static_cast<std::size_t>(i) * info_.vocab_size +
         static_cast<std::size_t>(io::floats(x)[i])] = 1.f;
    }
    return y;
  }
  std::vector<models::Module> modules() const override {
    return {};
  }
  std::unique_ptr<models::Model> with_matrices(
      const models::MatricesByName& matrices) const override {
    fail(ErrorKind::NotFound, "no module '{}'", matrices.begin()->first);
  }

 private:
  models::ModelInfo info_;
  Script script_;
  std::function<void()> on_forward_;
  cache::LayerFormat layer_;
};

} // namespace optiq::testing
