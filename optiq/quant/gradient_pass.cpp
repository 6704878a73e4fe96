#include "optiq/quant/gradient_pass.h"

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <vector>

#include "optiq/base/ram_limit.h"
#include "optiq/kernels/gradients.h"

namespace optiq::quant {
namespace {

namespace mx = mlx::core;

/** A matrix's input and output of every token, each once more for what lies
 * between. */
std::uint64_t kept_bytes(const models::Model& model, std::uint64_t tokens) {
  std::uint64_t values = 0; // of a token
  for (const models::Module& module : model.modules()) {
    if (module.id.layer >= 0) {
      values += 2 *
          static_cast<std::uint64_t>(
                    module.matrix.out_features() + module.matrix.in_features());
    }
  }
  return values * sizeof(float) * tokens;
}

std::uint64_t longest_chunk(const Calibration& calibration) {
  std::size_t tokens = 0;
  for (const auto& chunk : calibration.chunks) {
    tokens = std::max(tokens, chunk.size());
  }
  return tokens;
}

void for_lookup(
    kernels::Device& device,
    const train::WeightUse& use,
    const GradientRows& body) {
  const kernels::HostRows dy = device.to_host(use.dy);
  std::map<std::int32_t, std::vector<float>> sums; // by row of the matrix
  for (std::size_t t = 0; t < use.ids.size(); ++t) {
    const std::span<const float> row = dy.row(static_cast<int>(t));
    std::vector<float>& sum = sums[use.ids[t]];
    sum.resize(row.size());
    std::transform(
        row.begin(), row.end(), sum.begin(), sum.begin(), std::plus());
  }
  std::vector<int> rows;
  std::vector<float> all;
  for (const auto& [id, sum] : sums) {
    rows.push_back(id);
    all.insert(all.end(), sum.begin(), sum.end());
  }
  body(rows, all);
}

} // namespace

void for_tiles(
    kernels::Device& device,
    const mx::array& dy,
    int width,
    const ColumnTile& body) {
  // Where launches and copies have a price of their own they are larger.
  const int floats = device.own_bytes_left() ? kOwnGradientTile : kGradientTile;
  const int out = dy.shape(1);
  const int tile = std::max(1, floats / width);
  for (int begin = 0; begin < out; begin += tile) {
    const int n = std::min(tile, out - begin);
    std::vector<int> rows(n);
    std::iota(rows.begin(), rows.end(), begin);
    body(rows, device.columns(dy, begin, n));
  }
}

void for_gradient_tiles(
    kernels::Device& device,
    const train::WeightUse& use,
    const ColumnTile& body) {
  for_tiles(
      device,
      use.dy,
      use.x->shape(1),
      [&](std::span<const int> rows, const mx::array& dy) {
        body(rows, device.gradients().outer(dy, *use.x));
      });
}

void for_gradient_rows(
    kernels::Device& device,
    const train::WeightUse& use,
    const GradientRows& body) {
  if (use.x == nullptr) {
    for_lookup(device, use, body);
    return;
  }
  for_gradient_tiles(
      device, use, [&](std::span<const int> rows, const mx::array& gradient) {
        body(rows, device.to_host(gradient).all());
      });
}

bool keeps_layers(
    const models::Model& model,
    const Calibration& calibration,
    std::size_t max_kept_bytes) {
  return kept_bytes(model, longest_chunk(calibration)) <= max_kept_bytes;
}

std::uint64_t gradient_pass_bytes(
    const models::Model& model,
    const Calibration& calibration,
    std::size_t max_kept_bytes) {
  const std::uint64_t tokens = longest_chunk(calibration);
  const std::uint64_t n_layers = model.info().n_layers;
  std::uint64_t widest = 0; // of a gradient's row in a layer
  for (const models::Module& module : model.modules()) {
    if (module.id.layer >= 0) {
      widest = std::max(
          {widest,
           static_cast<std::uint64_t>(module.matrix.in_features()),
           static_cast<std::uint64_t>(module.matrix.out_features())});
    }
  }
  const std::uint64_t all = kept_bytes(model, tokens);
  const std::uint64_t inputs = RamLimit::left() // they are spilled
      ? 0
      : tokens * model.info().hidden_size * sizeof(float) * (n_layers + 1);
  const std::uint64_t layer = all / n_layers;
  const std::uint64_t kept =
      keeps_layers(model, calibration, max_kept_bytes) ? all : inputs + layer;
  // Of the rows whose logits are there at once, with their gradients and what
  // is made of these.
  const std::uint64_t logits = 3 *
      static_cast<std::uint64_t>(train::BackpropagationOptions{}.logit_rows) *
      sizeof(float) * static_cast<std::uint64_t>(model.info().vocab_size);
  return kept + layer + logits + tokens * widest * sizeof(float);
}

} // namespace optiq::quant
