#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "optiq/models/model.h"

namespace optiq::models {

/** A model that passes everything on to another one: the base of those that
 * change one thing of it. `with_matrix` stays theirs, for it makes a model. */
class ModelDecorator : public Model {
 public:
  explicit ModelDecorator(std::shared_ptr<const Model> model)
      : model_(std::move(model)) {}

  const ModelInfo& info() const override {
    return model_->info();
  }
  std::vector<cache::LayerFormat> cache_layout(
      mx::Dtype kv_dtype) const override {
    return model_->cache_layout(kv_dtype);
  }
  mx::array embed(std::span<const std::int32_t> tokens) const override {
    return model_->embed(tokens);
  }
  std::vector<mx::array> layer_inputs(
      std::span<const std::int32_t> tokens,
      const nn::ForwardContext& context) const override {
    return model_->layer_inputs(tokens, context);
  }
  int rerun_from(int layer) const override {
    return model_->rerun_from(layer);
  }
  mx::array run_layer(
      int layer,
      const mx::array& x,
      const nn::ForwardContext& context) const override {
    return model_->run_layer(layer, x, context);
  }
  mx::array run_last_layer(
      const mx::array& x,
      std::span<const int> wanted,
      const nn::ForwardContext& context) const override {
    return model_->run_last_layer(x, wanted, context);
  }
  mx::array logits(const mx::array& x, const nn::ForwardContext& context)
      const override {
    return model_->logits(x, context);
  }
  std::vector<Module> modules() const override {
    return model_->modules();
  }

 protected:
  std::shared_ptr<const Model> model_;
};

} // namespace optiq::models
