#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "optiq/cache/kv_cache.h"
#include "optiq/kernels/kernels.h"

namespace optiq::nn {

namespace mx = mlx::core;

/** The rows of one sequence in a flat ragged batch. */
struct Segment {
  cache::Sequence* sequence = nullptr; // reserved for start + rows tokens
  int first_row = 0;
  int rows = 0;
  int start = 0; // absolute position of the first row
};

/** What a forward needs besides weights and activations. */
struct ForwardContext {
  std::vector<Segment> segments; // rows in order, without gaps
  std::vector<std::int32_t> positions; // [T], absolute
  kernels::Compute compute = kernels::Compute::Fast;
  /** Per layer, what it gets besides the hidden state, [T, P] (Gemma 4's
   * per-layer inputs); empty for models without. */
  std::vector<mx::array> layer_inputs;
};

/** Fills positions from the segments. */
ForwardContext make_forward_context(
    std::vector<Segment> segments,
    kernels::Compute compute);

} // namespace optiq::nn
