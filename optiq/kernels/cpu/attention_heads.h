#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include <mlx/array.h>

#include "optiq/kernels/attention.h"

/** What happens to projected q, k and v before they meet: gates are split off,
 * heads normed, turned and grown. */
namespace optiq::kernels::cpu {

/** What scores are made of. */
struct Heads {
  mx::array q; // [T, n_heads, head_dim]
  mx::array k; // [T, n_kv_heads, head_dim]; T = 0 without K/V of its own
  mx::array v; // the same, [T, n_kv_heads, head_dim]
  std::optional<mx::array> gate; // [T, n_heads * head_dim]
};

/** q, k and v as Device::attend has them. Throws InvalidInput. */
Heads make_heads(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionRule& rule,
    std::span<const std::int32_t> positions);

/** [T, n_heads * 2 * head_dim] -> q, gate, each [T, n_heads * head_dim]. */
std::pair<mx::array, mx::array>
split_query_and_gate(const mx::array& x, int n_heads, int head_dim);

/** The way back. */
mx::array join_query_and_gate(
    const mx::array& q,
    const mx::array& gate,
    int n_heads,
    int head_dim);

/** q [T, n_heads, head_dim], every row times what its position grows it by. */
mx::array grow_queries(
    const mx::array& q,
    const QueryGrowth& growth,
    std::span<const std::int32_t> positions);

} // namespace optiq::kernels::cpu
