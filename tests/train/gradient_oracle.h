#pragma once

#include <cmath>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "support/kernel_checks.h"

#include "optiq/io/array.h"
#include "optiq/models/forward.h"
#include "optiq/train/backpropagation.h"

/** Losses and gradients of whole models, by MLX's automatic differentiation of
 * the model's forward on the MLX device. */
namespace optiq::train {

constexpr int kRank = 3;

/** An adapter of every linear that multiplies. */
inline nn::Adapter adapter_of(const models::Model& model, unsigned seed = 40) {
  nn::Adapter adapter;
  for (const models::Module& module : model.modules()) {
    if (module.id.role == artifacts::ModuleRole::LayerInputEmbedding ||
        (module.id.role == artifacts::ModuleRole::Embedding &&
         !model.info().tied_head)) {
      continue;
    }
    const int in = module.matrix.in_features();
    const int out = module.matrix.out_features();
    adapter.updates.insert(
        {module.name,
         {.a = testing::normal_array({kRank, in}, ++seed, 0.1f),
          .b = testing::normal_array({kRank, out}, ++seed, 0.1f),
          .scale = 0.7f}});
  }
  return adapter;
}

/** Sequences whose tokens are followed by the next ones, not all of which
 * count, and by different weights. */
inline std::vector<Example> examples_of(
    const std::vector<std::int32_t>& tokens,
    const std::vector<int>& lengths) {
  std::vector<Example> batch;
  int at = 0;
  for (const int length : lengths) {
    Example example;
    for (int t = 0; t < length; ++t) {
      example.tokens.push_back(tokens[at + t]);
      example.labels.push_back(tokens[at + t + 1]);
      example.weights.push_back(static_cast<float>((at + t) % 3) / 2);
    }
    batch.push_back(std::move(example));
    at += length;
  }
  return batch;
}

/** The updates by name, the order of Loss. */
inline std::map<std::string, nn::LowRank> in_order(const nn::Adapter& adapter) {
  return {adapter.updates.begin(), adapter.updates.end()};
}

/** {loss, dL/dA and dL/dB of every module in order} */
inline std::vector<mx::array> differentiate_by_mlx(
    const models::Setup& setup,
    const std::vector<Example>& batch,
    const nn::Adapter& adapter) {
  std::vector<mx::array> parameters;
  std::vector<int> arguments;
  for (const auto& [name, change] : in_order(adapter)) {
    for (const mx::array& array : {change.a, change.b}) {
      arguments.push_back(static_cast<int>(parameters.size()));
      parameters.push_back(array);
    }
  }
  const auto loss_of = [&](const std::vector<mx::array>& x) {
    nn::Adapter traced;
    int next = 0;
    for (const auto& [name, change] : in_order(adapter)) {
      traced.updates.insert({name, {x[next], x[next + 1], change.scale}});
      next += 2;
    }
    models::Forward forward(setup);
    Example flat;
    for (const Example& example : batch) {
      forward.add_fresh(example.tokens, &traced);
      const auto append = [](auto& to, const auto& from) {
        to.insert(to.end(), from.begin(), from.end());
      };
      append(flat.tokens, example.tokens);
      append(flat.labels, example.labels);
      append(flat.weights, example.weights);
    }
    const auto n = static_cast<int>(flat.tokens.size());
    std::vector<int> rows(n);
    std::iota(rows.begin(), rows.end(), 0);
    const mx::array logits = forward.logits(
        forward.run_layers(
            0, setup.model->info().n_layers, setup.model->embed(flat.tokens)),
        rows);
    const mx::array labels(flat.labels.data(), {n, 1}, mx::int32);
    const mx::array losses = mx::subtract(
        mx::logsumexp(logits, -1),
        mx::squeeze(mx::take_along_axis(logits, labels, 1), 1));
    return std::vector<mx::array>{
        mx::sum(mx::multiply(losses, mx::array(flat.weights.data(), {n})))};
  };
  const auto [value, gradients] =
      mx::value_and_grad(loss_of, arguments)(parameters);
  std::vector<mx::array> all{value.front()};
  all.insert(all.end(), gradients.begin(), gradients.end());
  for (mx::array& array : all) {
    array = mx::contiguous(array);
  }
  mx::eval(all);
  return all;
}

/** |a - b| / |b|. */
inline double relative_distance(const mx::array& a, const mx::array& b) {
  double difference = 0;
  double size = 0;
  const mx::array left = io::materialize(a);
  const mx::array right = io::materialize(b);
  const auto x = io::floats(left);
  const auto y = io::floats(right);
  for (std::size_t i = 0; i < y.size(); ++i) {
    difference += (double{x[i]} - y[i]) * (double{x[i]} - y[i]);
    size += double{y[i]} * y[i];
  }
  return std::sqrt(difference / size);
}

/** Loss and gradients, found on the model's device, against MLX's. */
inline void expect_gradients(
    const Loss& found,
    const std::vector<mx::array>& expected,
    double bound) {
  EXPECT_NEAR(
      found.sum, expected[0].item<float>(), bound * std::abs(found.sum));
  ASSERT_EQ(2 * found.gradients.size() + 1, expected.size());
  std::size_t next = 1;
  for (const auto& [name, gradient] : found.gradients) {
    EXPECT_LE(relative_distance(gradient.a, expected[next++]), bound) << name;
    EXPECT_LE(relative_distance(gradient.b, expected[next++]), bound) << name;
  }
}

inline bool same_bits(const Loss& a, const Loss& b) {
  if (a.sum != b.sum || a.gradients.size() != b.gradients.size()) {
    return false;
  }
  for (const auto& [name, gradient] : a.gradients) {
    const LowRankGradient& other = b.gradients.at(name);
    if (!testing::same_bits(io::floats(gradient.a), io::floats(other.a)) ||
        !testing::same_bits(io::floats(gradient.b), io::floats(other.b))) {
      return false;
    }
  }
  return true;
}

} // namespace optiq::train
