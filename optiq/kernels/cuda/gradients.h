#pragma once

#include <span>
#include <utility>

#include "optiq/kernels/cuda/card.h"
#include "optiq/kernels/cuda/gradient_arguments.h"
#include "optiq/kernels/gradients.h"

/** The gradients of a card. Shapes and errors are those of gradients.h.
 * Products are of floats, each as two of TF32: errors of 2^-22. */
namespace optiq::kernels::cuda::gradients {

inline Factor transposed(Factor factor) {
  std::swap(factor.row, factor.column);
  return factor;
}

/** Of `heads` products side by side. */
void multiply_floats(Card& card, FloatProduct product, int heads = 1);

mx::array multiply(Card& card, const mx::array& dy, const Matrix& weight);
mx::array outer(Card& card, const mx::array& dy, const mx::array& x);
mx::array normalize(
    Card& card,
    const mx::array& dy,
    const mx::array& x,
    const Norm& norm);
std::pair<mx::array, mx::array> glu(
    Card& card,
    const mx::array& dy,
    const mx::array& gate,
    const mx::array& up,
    Activation activation);
/** {for x, for gate} of x sigmoid(gate). */
std::pair<mx::array, mx::array> sigmoid_gate(
    Card& card,
    const mx::array& dy,
    const mx::array& x,
    const mx::array& gate);
mx::array
softcap(Card& card, const mx::array& dy, const mx::array& y, float cap);
mx::array columns(Card& card, const mx::array& dy, int begin, int width);
mx::array
take_rows(Card& card, const mx::array& dy, std::span<const int> rows, int n);
AttentionGradients attend(
    Card& card,
    const mx::array& dy,
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionRule& rule,
    std::span<const Segment> segments,
    int window);
DeltaNetInput gated_delta_net(
    Card& card,
    const mx::array& dy,
    const DeltaNetInput& input,
    const DeltaNetWeights& weights,
    const DeltaNetShape& shape,
    std::span<const Segment> segments);
LogitLoss cross_entropy(
    Card& card,
    const mx::array& logits,
    std::span<const std::int32_t> labels,
    std::span<const float> weights);
LogitLoss kl_divergence(
    Card& card,
    const mx::array& reference,
    const mx::array& logits,
    std::span<const float> weights);

} // namespace optiq::kernels::cuda::gradients
