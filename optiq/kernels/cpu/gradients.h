#pragma once

#include <span>
#include <utility>
#include <vector>

#include "optiq/kernels/gradients.h"

/** The derivatives of the CPU device's operations: shapes and errors are those
 * of kernels/gradients.h. */
namespace optiq::kernels::cpu::gradients {

mx::array multiply(const mx::array& dy, const Matrix& weight);
mx::array outer(const mx::array& dy, const mx::array& x);
mx::array normalize(const mx::array& dy, const mx::array& x, const Norm& norm);
std::pair<mx::array, mx::array> glu(
    const mx::array& dy,
    const mx::array& gate,
    const mx::array& up,
    Activation activation);
mx::array softcap(const mx::array& dy, const mx::array& y, float cap);
/** Of y = x sigmoid(gate): {for x, for gate}. */
std::pair<mx::array, mx::array>
sigmoid_gate(const mx::array& dy, const mx::array& x, const mx::array& gate);
mx::array columns(const mx::array& dy, int begin, int width);
mx::array take_rows(const mx::array& dy, std::span<const int> rows, int n);
AttentionGradients attend(
    const mx::array& dy,
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionRule& rule,
    std::span<const Segment> segments,
    int window);
DeltaNetInput gated_delta_net(
    const mx::array& dy,
    const DeltaNetInput& input,
    const DeltaNetWeights& weights,
    const DeltaNetShape& shape,
    std::span<const Segment> segments);
LogitLoss cross_entropy(
    const mx::array& logits,
    std::span<const std::int32_t> labels,
    std::span<const float> weights);
LogitLoss kl_divergence(
    const mx::array& reference,
    const mx::array& logits,
    std::span<const float> weights);

} // namespace optiq::kernels::cpu::gradients
