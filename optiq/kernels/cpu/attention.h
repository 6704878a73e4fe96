#pragma once

#include <cstddef>
#include <span>

/**
 * Causal attention of one sequence over its block cache.
 *
 *   out = sum_t softmax(q . k_t * scale) v_t
 *
 * A block holds 64 tokens: for each kv head K^T [head_dim][64], then
 * V [64][head_dim], float32 or bfloat16. The softmax is online: for every
 * block in order, a row's running maximum, sum and weighted values are
 * rescaled, then the block's are added. A row's arithmetic is the same however
 * rows are tiled; tokens it does not see are never read into it.
 */
namespace optiq::kernels::cpu {

inline constexpr std::size_t kBlockTokens = 64;

enum class KvType { Float32, BFloat16 };

struct AttentionShape {
  std::size_t n_heads = 0;
  std::size_t n_kv_heads = 0;
  std::size_t head_dim = 0;
  KvType type = KvType::Float32;
  float scale = 1.0f;
  std::size_t window = 0; // 0: everything before

  std::size_t group() const {
    return n_heads / n_kv_heads;
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
  std::span<std::byte* const> blocks; // of the sequence
};

/** Writes the tile's rows of k and v [T][n_kv_heads][head_dim]. */
void append_kv(
    const float* k,
    const float* v,
    const AttentionShape& shape,
    const AttentionTile& tile);

/** Rows per tile that make good use of a core for this shape. */
std::size_t attention_tile_rows(const AttentionShape& shape);

/** Floats of scratch that `attend` needs, 64-byte aligned. */
std::size_t attention_scratch_floats(const AttentionShape& shape);

/** q, out [T][n_heads][head_dim]; the tile has at most attention_tile_rows. */
void attend(
    const float* q,
    const AttentionShape& shape,
    const AttentionTile& tile,
    float* scratch,
    float* out);

} // namespace optiq::kernels::cpu
