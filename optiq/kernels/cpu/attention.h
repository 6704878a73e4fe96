#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "optiq/kernels/block_store.h"
#include "optiq/kernels/cpu/kv_layout.h"

/**
 * Causal attention of one sequence over its block cache.
 *
 *   out = sum_t softmax(q . k_t * scale) v_t
 *
 * where scores may be capped: softcap * tanh(score / softcap).
 *
 * Tokens are taken in absolute spans of 256. Of each span a row makes a
 * partial result: the largest score m, the sum of exp(score - m), and the
 * values weighted with it. Partials are added in the order of the spans,
 * rescaled to the larger m. So a row's arithmetic is the same however rows are
 * tiled and spans are shared out; tokens it does not see are never read into
 * it.
 *
 * bfloat16 sides meet bfloat16 (or, exact, are turned into float32 block by
 * block): queries are rounded after the scale, weights after exp, and the
 * denominator is the sum of the rounded weights. Of a pair of tokens of which a
 * row sees one, the other is masked out.
 *
 * Packed sides meet int8, one digit or, exact, three: scores from queries
 * rounded per unit of up to 64 channels; values from weights p * scale rounded
 * per block of 64 tokens. Turbo's centroids have as many digits; of the
 * products of digits those count that reach above the last one. Sums of a place
 * are exact integers.
 */
namespace optiq::kernels::cpu {

inline constexpr std::size_t kSpanBlocks = 4;
inline constexpr std::size_t kSpanTokens = kSpanBlocks * kBlockTokens;

/** Channels of a key whose products are summed as integers. */
struct KeyUnit {
  std::size_t channel = 0;
  std::size_t channels = 0; // a multiple of 32, padding included
  std::size_t group = 0; // affine
};

/** What the integer sums of a query's unit become. */
struct KeyFactors {
  float scale = 0.0f; // of the first digit, times turbo's step
  float bias = 0.0f; // affine: what a bias is multiplied by
  /** Turbo: what the sums of the digits' places begin with, since its bytes
   * count from 128. */
  std::array<std::int32_t, kExactDigits> before{};
};

struct KeyUnits {
  std::array<KeyUnit, kMaxHeadDim / 32> units;
  std::size_t size = 0;
};

/** Of a packed side; none otherwise. */
KeyUnits key_units(const KvSide& key);

struct AttentionShape {
  std::size_t n_heads = 0;
  KvLayout layout;
  float scale = 1.0f;
  float softcap = 0.0f; // 0: none
  std::size_t window = 0; // 0: everything before
  KeyUnits units;

  std::size_t group() const {
    return n_heads / layout.n_kv_heads;
  }
  /** First token that the row at `position` sees. */
  std::size_t first_seen(std::size_t position) const {
    return window == 0 || position < window ? 0 : position - window + 1;
  }
};

/** Consecutive rows of one sequence and one kv head. */
struct AttentionTile {
  std::size_t first_row = 0; // in q, k, v and out
  std::size_t rows = 0;
  std::size_t start = 0; // absolute position of first_row
  std::size_t kv_head = 0;
  std::span<const BlockId> blocks; // of the sequence

  std::size_t end() const {
    return start + rows;
  }
};

/** Queries as the kernels read them, scaled and rotated. */
struct Queries {
  float* values = nullptr; // [T][n_heads][head_dim], unless there are halves
  std::uint16_t* halves = nullptr; // the same as bfloat16, for dots
  std::int8_t* digits = nullptr; // [T][n_heads][digits][key dims], for codes
  KeyFactors* factors = nullptr; // [T][n_heads][units]
};

/** Partial results of `n` queries. */
struct Partial {
  float* sum = nullptr; // [n][stride]
  float* denominator = nullptr; // [n]
  float* maximum = nullptr; // [n]
};

/** Whether keys meet int8 queries. */
bool needs_digits(const AttentionShape& shape);

/** Whether keys meet bfloat16 queries. */
bool needs_halves(const AttentionShape& shape);

/** Fills `to` for heads [first, last) of q [T][n_heads][head_dim]. */
void prepare_queries(
    const float* q,
    const AttentionShape& shape,
    std::size_t first,
    std::size_t last,
    const Queries& to);

/** Rows per tile that make good use of a core for this shape. */
std::size_t attention_tile_rows(const AttentionShape& shape);

/** Floats of a partial of n queries, and where its parts lie. */
std::size_t partial_floats(const AttentionShape& shape, std::size_t n);
Partial partial_at(const AttentionShape& shape, std::size_t n, float* memory);

/** Floats of scratch that `attend_span` needs for n queries, in whole cache
 * lines; 64-byte aligned. */
std::size_t attention_scratch_floats(
    const AttentionShape& shape,
    std::size_t n);

/** The spans that a tile sees: [first, last). */
struct Spans {
  std::size_t first = 0;
  std::size_t last = 0;
};
Spans spans_of(const AttentionShape& shape, const AttentionTile& tile);

/** The partial of a tile and a span. */
void attend_span(
    const Queries& queries,
    const AttentionShape& shape,
    const AttentionTile& tile,
    std::size_t span,
    float* scratch,
    const Partial& to);

/** Adds a partial to the total of the spans before; a total starts as the
 * partial of the first. */
void add_partial(
    const AttentionShape& shape,
    std::size_t n,
    const Partial& part,
    const Partial& total);

/** Divides, turns back, and writes the tile's rows of out
 * [T][n_heads][head_dim]. */
void finish_tile(
    const AttentionShape& shape,
    const AttentionTile& tile,
    const Partial& total,
    float* out);

} // namespace optiq::kernels::cpu
