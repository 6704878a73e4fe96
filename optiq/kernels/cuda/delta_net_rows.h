#pragma once

#include <span>
#include <vector>

#include "optiq/kernels/cuda/arguments.h"
#include "optiq/kernels/cuda/card.h"
#include "optiq/kernels/device.h"

/** Many rows of gated delta nets, on the way there and back. */
namespace optiq::kernels::cuda {

/** Sizes, weights and input; the rest is not set. */
DeltaNet delta_net_of(
    Card& card,
    const DeltaNetInput& input,
    const DeltaNetWeights& weights,
    const DeltaNetShape& shape);

/** Rows on the card with what the kernels hand each other. */
class DeltaNetRows {
 public:
  /** Segments have rows each, and a block each. */
  DeltaNetRows(
      Card& card,
      const DeltaNet& net,
      std::span<const StateSegment> segments);

  const DeltaNet& net() const {
    return net_;
  }
  int channels() const {
    return channels_;
  }
  std::size_t rows() const {
    return static_cast<std::size_t>(net_.rows);
  }
  std::size_t segments() const {
    return n_segments_;
  }
  /** Conv, norms of heads, gates, and the recurrence: y before norm and gate.
   */
  void recur(Card& card) const;

 private:
  DeltaNet net_;
  int channels_ = 0;
  std::size_t n_segments_ = 0;
  Buffer sent_;
  Buffer conv_;
  Buffer dots_;
  Buffer decay_;
  Buffer beta_;
};

} // namespace optiq::kernels::cuda
