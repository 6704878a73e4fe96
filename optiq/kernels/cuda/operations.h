#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "optiq/kernels/cuda/arguments.h"
#include "optiq/kernels/cuda/card.h"
#include "optiq/kernels/device.h"

/** The operations of a card. Shapes and errors are those of device.h. */
namespace optiq::kernels::cuda {

/** Up to so many rows a row has the same bits whatever their number; and from
 * one more on. */
inline constexpr int kMostEqualRows = 64;

/** Rows of x have the same bits up to kMostEqualRows, and from there on where
 * there are wide products; elsewhere whatever their number. */
std::vector<mx::array>
multiply(Card& card, const mx::array& x, const Product& product);
/** Whether a card has kernels for many rows (product_wide.cu). */
bool has_wide_products(const CardInfo& card);

mx::array embed(
    Card& card,
    std::span<const std::int32_t> ids,
    const Matrix& weight,
    float scale);
mx::array normalize(Card& card, const mx::array& x, const Norm& norm);
mx::array add(Card& card, const mx::array& a, const mx::array& b);
mx::array scale(Card& card, const mx::array& x, float factor);
mx::array glu(
    Card& card,
    const mx::array& gate,
    const mx::array& up,
    Activation activation);
Elementwise elementwise_of(Activation activation);
mx::array softcap(Card& card, const mx::array& x, float cap);
mx::array
sum_squares(Card& card, const mx::array& x, int width, const mx::array* less);

mx::array reshape(Card& card, const mx::array& x, const mx::Shape& shape);
mx::array row_range(Card& card, const mx::array& x, int begin, int n);
mx::array take_rows(Card& card, const mx::array& x, std::span<const int> rows);
mx::array concatenate(Card& card, std::span<const mx::array> parts);
mx::array columns(Card& card, const mx::array& x, int begin, int width);

/** The format with the layout of its blocks on this card. */
KvFormat kv_format(Card& card, KvFormat format);
mx::array attend(
    Card& card,
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionRule& rule,
    std::span<const Segment> segments,
    const KvFormat& format);
mx::array gated_delta_net(
    Card& card,
    const DeltaNetInput& input,
    const DeltaNetWeights& weights,
    const DeltaNetShape& shape,
    std::span<const Segment> segments);

std::vector<double> log_sum_exp(Card& card, const mx::array& logits);
std::vector<std::int32_t> argmax(Card& card, const mx::array& logits);
std::vector<float>
pick(Card& card, const mx::array& logits, std::span<const std::int32_t> ids);
std::vector<double>
kl_divergence(Card& card, const mx::array& reference, const mx::array& logits);
std::vector<BlockSums>
block_sums(Card& card, const mx::array& logits, std::span<const float> scales);
HostRows take_blocks(
    Card& card,
    const mx::array& logits,
    std::span<const LogitBlockId> blocks);

} // namespace optiq::kernels::cuda
