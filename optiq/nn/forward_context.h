#pragma once

#include <functional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "optiq/cache/sequence.h"
#include "optiq/kernels/device.h"

namespace optiq::nn {

namespace mx = mlx::core;

struct Linear;

/** What an adapter adds to a linear: scale (x A^T) B^T (LoRA, arXiv
 * 2106.09685). */
struct LowRank {
  mx::array a; // [rank, in] f32 or bf16, on the model's device
  mx::array b; // [rank, out]: B transposed
  float scale = 1.f;
};

/** What an adapter adds to a model. Nothing in it changes while a forward runs
 * with it. */
struct Adapter {
  /** Tells it from every other adapter of the model: belongs into the key of
   * prefixes that are kept. */
  std::string key;
  std::unordered_map<std::string, LowRank> updates; // by the linear's path
};

/** The rows of one sequence in a flat ragged batch. */
struct Segment {
  cache::Sequence* sequence = nullptr; // reserved for start + rows tokens
  int first_row = 0;
  int rows = 0;
  int start = 0; // absolute position of the first row
  const Adapter* adapter = nullptr; // of these rows alone, or none
};

/** Is shown what a linear layer multiplies, before it does: x [T, in], a norm
 * on its way included. Linears that read the same rows get the same array. */
using LinearObserver =
    std::function<void(const Linear& linear, const mx::array& x)>;

/** What a forward needs besides weights and activations. models/forward.cpp
 * alone makes it. */
struct ForwardContext {
  kernels::Device* device = nullptr; // the model's
  std::vector<Segment> segments; // rows in order, without gaps
  kernels::Compute compute = kernels::Compute::Fast;
  /** Per layer, what it gets besides the hidden state, [T, P] (Gemma 4's
   * per-layer inputs); empty for models without. */
  std::vector<mx::array> layer_inputs;
  LinearObserver observer; // or nobody
};

/** The segments as an operation of `layer` sees them. */
std::vector<kernels::Segment> segments_of(
    const ForwardContext& context,
    int layer);

/** The context of a batch of which only rows `wanted` (ascending) go on, for
 * what needs no sequences: their adapters, and whom shows them. */
ForwardContext context_of_rows(
    const ForwardContext& context,
    std::span<const int> wanted);

} // namespace optiq::nn
