// What a rank works on, one tile of queries against one span of tokens, and how
// its queries go together; included once per SIMD target.
#if defined(OPTIQ_KERNELS_CPU_ATTENTION_SPAN_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef OPTIQ_KERNELS_CPU_ATTENTION_SPAN_INL_H_
#undef OPTIQ_KERNELS_CPU_ATTENTION_SPAN_INL_H_
#else
#define OPTIQ_KERNELS_CPU_ATTENTION_SPAN_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "hwy/highway.h"

#include "optiq/kernels/cpu/amx_attention.h"
#include "optiq/kernels/cpu/attention.h"
#include "optiq/kernels/cpu/attention_scratch_impl.h"
#include "optiq/kernels/cpu/block_memory.h"
#include "optiq/kernels/cpu/dense_attention-inl.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {

/** One tile against one span. */
struct SpanWork {
  const Queries& queries;
  const AttentionShape& shape;
  const AttentionTile& tile;
  std::size_t first_block; // of the span that the tile sees
  std::size_t last_block;
  std::size_t first_token; // of first_block
  std::size_t tile_blocks; // where what the tile sees ends
  std::size_t n; // queries
  SpanScratch scratch;
  Partial to;
  QueryTiles& tiles; // not in use unless blocks are read as such
  std::size_t keys_at; // in a block
  std::size_t values_at;

  std::size_t head(std::size_t query) const {
    return scratch.heads[query];
  }
  const std::byte* keys(std::size_t block) const {
    return address_of(tile.blocks[block]) + keys_at;
  }
  const std::byte* values(std::size_t block) const {
    return address_of(tile.blocks[block]) + values_at;
  }
  /** Tokens of [from, from + n_tokens) that a query sees, counted from `from`;
   * {} when none. */
  Tokens seen(std::size_t query, std::size_t from, std::size_t n_tokens) const {
    const std::size_t at = scratch.positions[query];
    const auto inside = [=](std::size_t token) {
      return std::clamp(token, from, from + n_tokens) - from;
    };
    const Tokens tokens{inside(shape.first_seen(at)), inside(at + 1)};
    return tokens.empty() ? Tokens{} : tokens;
  }
  /** Whether every query sees every token of a block. */
  bool all_see(std::size_t block) const {
    return (block + 1) * kBlockTokens <= tile.start + 1 &&
        block * kBlockTokens >= shape.first_seen(tile.end() - 1);
  }
  float* scores(std::size_t query, std::size_t block) const {
    return scratch.scores + query * kSpanTokens +
        (block - first_block) * kBlockTokens;
  }
  /** Scores that have become weights of dense values: float32, or bfloat16
   * from the start of the span's scores on. */
  template <class Cell>
  const Cell* weights(std::size_t query, std::size_t block) const {
    return reinterpret_cast<const Cell*>(scores(query, first_block)) +
        (block - first_block) * kBlockTokens / kDepth<Cell>;
  }
  float* sum(std::size_t query) const {
    return to.sum + query * scratch.stride;
  }
  /** What to fetch while a block's keys, or values, are read; null for nothing:
   * only few queries, which read a block once, wait for memory. */
  const std::byte* after_keys(std::size_t block) const {
    return fetches() ? values(block) : nullptr;
  }
  const std::byte* after_values(std::size_t block) const {
    const std::size_t next = block + kSpanBlocks;
    return fetches() && next < tile_blocks ? keys(next) : nullptr;
  }
  bool fetches() const {
    return n <= 2 * kMaxQueries;
  }
};

/** Queries multiplied together, and what they see of a block. */
struct Group {
  std::size_t begin = 0;
  std::size_t n = 0;
  Tokens seen[kMaxQueries];
};

/** Calls body(begin, size) for even parts of n queries, at most kMost each. */
template <std::size_t kMost, class Body>
HWY_INLINE void ForEvenParts(std::size_t n, const Body& body) {
  std::size_t begin = 0;
  for (std::size_t left = (n + kMost - 1) / kMost; left > 0; --left) {
    const std::size_t size = (n - begin) / left;
    body(begin, size);
    begin += size;
  }
}

/** Calls body(group) for even groups of at most kMost queries that see
 * something of a block. */
template <std::size_t kMost, class Body>
HWY_INLINE void
ForGroups(const SpanWork& work, std::size_t block, const Body& body) {
  const bool whole = work.all_see(block);
  ForEvenParts<kMost>(work.n, [&](std::size_t begin, std::size_t n) HWY_ATTR {
    Group group{.begin = begin, .n = n};
    bool any = whole;
    for (std::size_t r = 0; r < group.n; ++r) {
      group.seen[r] = whole
          ? Tokens{0, kBlockTokens}
          : work.seen(group.begin + r, block * kBlockTokens, kBlockTokens);
      any = any || !group.seen[r].empty();
    }
    if (any) {
      body(group);
    }
  });
}

/** Calls body(integral_constant n), 1 <= n <= kMost. */
template <std::size_t kMost, class Body>
HWY_INLINE void WithCount(std::size_t n, const Body& body) {
  const auto call = [&](auto count) HWY_ATTR {
    if constexpr (count() <= kMost) {
      body(count);
    }
  };
  switch (n) {
    case 1:
      return call(std::integral_constant<std::size_t, 1>());
    case 2:
      return call(std::integral_constant<std::size_t, 2>());
    case 3:
      return call(std::integral_constant<std::size_t, 3>());
    case 4:
      return call(std::integral_constant<std::size_t, 4>());
    case 5:
      return call(std::integral_constant<std::size_t, 5>());
    default:
      return call(std::integral_constant<std::size_t, 6>());
  }
}

} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
