#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <mlx/array.h>

#include "optiq/kernels/device.h"

/** The operations of the CPU device and what they are made of: each runs at
 * once, on the shared thread pool, on evaluated row-contiguous arrays, and
 * returns an evaluated array. Shapes and errors are those of device.h. */
namespace optiq::kernels::cpu {

// --- products

std::vector<mx::array> multiply(const mx::array& x, const Product& product);
mx::array
embed(std::span<const std::int32_t> ids, const Matrix& weight, float scale);

// --- row by row

mx::array normalize(const mx::array& x, const Norm& norm);
mx::array add(const mx::array& a, const mx::array& b);
/** bias [D] added to every row of x [T, D]. */
mx::array add_bias(const mx::array& x, const mx::array& bias);
mx::array scale(const mx::array& x, float factor);
mx::array
glu(const mx::array& gate, const mx::array& up, Activation activation);
mx::array softcap(const mx::array& x, float cap);
mx::array sum_squares(const mx::array& x, int width, const mx::array* less);
/** x * sigmoid(gate), same shape. */
mx::array sigmoid_gate(const mx::array& x, const mx::array& gate);
/** Turns x [T, n_heads, head_dim] at positions [T]; the channels behind
 * rotary_dim are copied. */
mx::array rope(
    const mx::array& x,
    std::span<const std::int32_t> positions,
    const Rope& rope);
/** dL/dx of rope's dL/dy: turned back, scaled once more. */
mx::array rope_gradient(
    const mx::array& dy,
    std::span<const std::int32_t> positions,
    const Rope& rope);
mx::array columns(const mx::array& x, int begin, int width);
mx::array concatenate(std::span<const mx::array> parts);

// --- sequences

/** What follows RoPE: q [T, n_heads, head_dim], k and v [T, n_kv_heads,
 * head_dim] -> [T, n_heads, head_dim]. Softmax and sums are float32, over
 * absolute spans of 256 tokens that are then added in order. */
mx::array append_and_attend(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    std::span<const Segment> segments,
    const KvFormat& format,
    const ScoreRule& rule);
/** The first half alone, for rows that no query reads now. */
void append_kv(
    const mx::array& k,
    const mx::array& v,
    std::span<const Segment> segments,
    const KvFormat& format);
mx::array attend(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionRule& rule,
    std::span<const Segment> segments,
    const KvFormat& format);
mx::array gated_delta_net(
    const DeltaNetInput& input,
    const DeltaNetWeights& weights,
    const DeltaNetShape& shape,
    std::span<const Segment> segments);

// --- reductions over the vocabulary

std::vector<double> log_sum_exp(const mx::array& logits);
std::vector<std::int32_t> argmax(const mx::array& logits);
std::vector<float> pick(
    const mx::array& logits,
    std::span<const std::int32_t> ids);
std::vector<double> kl_divergence(
    const mx::array& reference,
    const mx::array& logits);
std::vector<BlockSums> block_sums(
    const mx::array& logits,
    std::span<const float> scales);
HostRows take_blocks(
    const mx::array& logits,
    std::span<const LogitBlockId> blocks);

} // namespace optiq::kernels::cpu
