#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <mlx/array.h>

#include "optiq/cache/sequence.h"
#include "optiq/kernels/device.h"

namespace optiq::cache {

namespace mx = mlx::core;

struct TurboQuantOptions {
  int n_kv_heads = 1;
  kernels::KvRotation rotation = kernels::KvRotation::Orthogonal;
  kernels::Compute compute = kernels::Compute::Fast;
  std::size_t max_bytes = std::size_t{4} << 30;
};

/**
 * The K/V cache of one attention layer of one sequence by TurboQuant (arXiv
 * 2504.19874): of every vector a float16 norm and a packed Lloyd-Max code per
 * channel of the rotated unit vector. Queries are rotated once per token,
 * scores and values are computed on the codes, and the result is rotated back.
 *
 *   TurboQuantKvCache cache(64, 4, 42 + layer);
 *   cache.append(k, v);                 // [T, n_kv_heads, head_dim], after
 * RoPE mx::array y = cache.attend(q, s);   // q of the last rows, scores times
 * s
 *
 * Arrays are float32; results are evaluated. One thread at a time.
 */
class TurboQuantKvCache {
 public:
  /** Keys are rotated by `seed`, values by seed + 500. head_dim is a multiple
   * of 16 up to 256; bits 1..5, 2.5, 3.5. Throws Unsupported or InvalidInput
   * otherwise. */
  explicit TurboQuantKvCache(
      int head_dim,
      float bits = 4.f,
      std::uint64_t seed = 42,
      const TurboQuantOptions& options = {});

  /** Adds tokens: k and v [T, n_kv_heads, head_dim]. Throws InvalidInput for
   * another shape, Exhausted beyond max_bytes. */
  void append(const mx::array& k, const mx::array& v);

  /** Causal attention of the last T tokens' queries q [T, n_heads, head_dim];
   * n_heads is a multiple of n_kv_heads. The result has q's shape. */
  mx::array attend(const mx::array& q, float scale) const;

  /** Tokens held. */
  int length() const {
    return sequence_->length();
  }
  /** Bytes allocated, in blocks of 64 tokens. */
  std::size_t nbytes() const {
    return pool_->used_bytes();
  }
  const kernels::KvFormat& format() const {
    return format_;
  }

 private:
  kernels::KvFormat format_;
  std::shared_ptr<BlockPool> pool_;
  std::unique_ptr<Sequence> sequence_;
};

} // namespace optiq::cache
