// A span of packed keys and values: which codes go through a tile, which
// queries are multiplied together, and where; included once per SIMD target.
#if defined(OPTIQ_KERNELS_CPU_PACKED_SPAN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef OPTIQ_KERNELS_CPU_PACKED_SPAN_INL_H_
#undef OPTIQ_KERNELS_CPU_PACKED_SPAN_INL_H_
#else
#define OPTIQ_KERNELS_CPU_PACKED_SPAN_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <limits>

#include "hwy/highway.h"

#include "optiq/kernels/cpu/amx.h"
#include "optiq/kernels/cpu/amx_codes.h"
#include "optiq/kernels/cpu/attention_span-inl.h"
#include "optiq/kernels/cpu/packed_attention-inl.h"
#include "optiq/kernels/cpu/packed_weights-inl.h"
#include "optiq/kernels/cpu/prefetch.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {

/** What the codes' loops leave out of the fetching of `next`, a packed side:
 * its parameters; all of it when the side at hand has bytes for codes and so no
 * such loop. */
HWY_INLINE void
FetchRest(const KvSide& now, const KvSide& side, const std::byte* next) {
  if (next == nullptr || !side.packed()) {
    return;
  }
  const std::size_t from = now.bits == 8 ? 0 : side.codes_bytes();
  for (std::size_t at = from; at < side.bytes(); at += 64) {
    prefetch_far(next + at);
  }
}

/** R queries from `begin` on, as packed keys meet them. */
template <int kDigits, std::size_t R>
HWY_INLINE DigitRows<R> DigitsOf(const SpanWork& work, std::size_t begin) {
  const std::size_t dims = work.shape.layout.key.dims;
  DigitRows<R> rows;
  rows.digits.stride = dims;
  for (std::size_t r = 0; r < R; ++r) {
    const std::size_t head = work.head(begin + r);
    rows.digits.first[r] = work.queries.digits + head * kDigits * dims;
    rows.factors[r] = work.queries.factors + head * work.shape.units.size;
    rows.scores[r] = work.scores(begin + r, work.first_block);
  }
  return rows;
}

/** The same as packed values meet them. */
template <int kDigits, std::size_t R>
HWY_INLINE WeightRows<kDigits, R> WeightsOf(
    const SpanWork& work,
    std::size_t begin) {
  const std::size_t groups = work.shape.layout.value.groups();
  WeightRows<kDigits, R> rows;
  for (std::size_t r = 0; r < R; ++r) {
    rows.weights[r] = work.scratch.weights_of<kDigits>(begin + r, groups);
    rows.sums[r] = work.sum(begin + r);
  }
  return rows;
}

/** Whether unpacking in registers beats a tile: one group of queries, and one
 * plane of bytes. */
template <int kDigits>
HWY_INLINE bool ReadsNibbles(const SpanWork& work, const KvSide& side) {
  return side.bits == 4 && side.wide == 0 && work.n <= kMostQueries<kDigits> &&
      (kDigits == 1 || side.code == KvCode::Affine);
}

/** Calls body(tile) with the nibbles of a side whose panels are `panel` bytes;
 * body says where they lie. */
template <int kDigits, class Body>
HWY_INLINE void
WithNibbles(const KvSide& side, std::size_t panel, const Body& body) {
  if constexpr (kDigits == 1) {
    if (side.code == KvCode::Turbo) {
      body(NibbleTile<true>{nullptr, panel, nullptr, ByteTable(*side.table)});
      return;
    }
  }
  body(NibbleTile<false>{nullptr, panel, nullptr, ByteTable(CodeTable())});
}

/** Scores of the span with keys of nibbles. */
template <int kDigits>
HWY_INLINE void ScoreNibbles(const SpanWork& work) {
  const KvSide& side = work.shape.layout.key;
  const std::size_t codes_bytes = side.codes_bytes();
  const std::size_t panel = side.codes_before(side.dims);
  WithNibbles<kDigits>(side, panel, [&](auto tile) HWY_ATTR {
    WithCount<kMostQueries<kDigits>>(work.n, [&](auto count) HWY_ATTR {
      const auto rows = DigitsOf<kDigits, count()>(work, 0);
      for (std::size_t b = work.first_block; b < work.last_block; ++b) {
        const std::byte* keys = work.keys(b);
        tile.data = reinterpret_cast<const std::uint8_t*>(keys);
        tile.next = work.after_keys(b);
        FetchRest(side, work.shape.layout.value, tile.next);
        PackedScores<kDigits, !tile.kLooks>(
            work.shape.units,
            tile,
            keys + codes_bytes,
            rows,
            b - work.first_block);
      }
    });
  });
}

/** Adds the values of the span, nibbles. */
template <int kDigits>
HWY_INLINE void AddNibbles(const SpanWork& work) {
  const KvSide& side = work.shape.layout.value;
  const std::size_t panel = 4 * side.codes_before(kPanelRows);
  WithNibbles<kDigits>(side, panel, [&](auto tile) HWY_ATTR {
    WithCount<kMostQueries<kDigits>>(work.n, [&](auto count) HWY_ATTR {
      const auto rows = WeightsOf<kDigits, count()>(work, 0);
      for (std::size_t b = work.first_block; b < work.last_block; ++b) {
        tile.data = reinterpret_cast<const std::uint8_t*>(work.values(b));
        tile.next = work.after_values(b);
        FetchRest(side, work.shape.layout.key, tile.next);
        PackedValues<kDigits, !tile.kLooks>(
            side, tile, rows, b - work.first_block);
      }
    });
  });
}

// The target of machines that may have tiles of AMX.
constexpr bool kMayHaveTiles = HWY_TARGET == HWY_AVX3_SPR;

/** Whether tiles take the dots, which are the same numbers: of more queries
 * than are multiplied together. */
template <int kDigits>
HWY_INLINE bool UsesTiles(const SpanWork& work) {
  return work.n > kMostQueries<kDigits> && uses_amx();
}

/** Calls body(first, n) for so many queries at a time. */
template <class Body>
HWY_INLINE void ForTileRows(std::size_t n, const Body& body) {
  for (std::size_t first = 0; first < n; first += kTileRows) {
    body(first, std::min(kTileRows, n - first));
  }
}

/** Calls body(begin, integral_constant count) for even groups of n queries. */
template <std::size_t kMost, class Body>
HWY_INLINE void ForCounts(std::size_t n, const Body& body) {
  ForEvenParts<kMost>(n, [&](std::size_t begin, std::size_t size) HWY_ATTR {
    WithCount<kMost>(size, [&](auto count) HWY_ATTR { body(begin, count); });
  });
}

/** A product of all digits with a tile. */
template <int kDigits, bool kAffine>
HWY_INLINE CodeProduct ProductWith(const ByteTile& tile, std::size_t lanes) {
  return {
      .quad_stride = tile.quad_stride,
      .panel_stride = tile.panel_stride,
      .plane_stride = tile.plane_stride,
      .places = kDigits,
      .planes = kPlanesOf<kDigits, kAffine>,
      .sum_stride = kDigits * lanes,
      .next_place = lanes};
}

/** The sums from row `begin` on. */
HWY_INLINE SumTile SumsFrom(
    const CodeProduct& product,
    const std::int32_t* sums,
    std::size_t begin) {
  return {
      sums + begin * product.sum_stride,
      product.sum_stride,
      product.next_place};
}

/** Scores of a block with sums made on tiles. */
template <int kDigits, bool kAffine>
HWY_NOINLINE void
ScoreOnTiles(const SpanWork& work, std::size_t block, const ByteTile& tile) {
  alignas(64) std::int8_t digits[kDigits * kTileRows * kMaxHeadDim];
  alignas(64) std::int32_t sums[kTileRows * kDigits * kMaxHeadDim];
  const KvSide& side = work.shape.layout.key;
  const std::size_t dims = side.dims;
  // 64 tokens for each 64 channels.
  CodeProduct product = ProductWith<kDigits, kAffine>(tile, dims);
  product.digit_stride = dims;
  product.next_digit = kTileRows * dims;
  product.panels = kBlockTokens / kPanelRows;
  ForTileRows(work.n, [&](std::size_t first, std::size_t n) HWY_ATTR {
    for (std::size_t r = 0; r < n; ++r) {
      const std::int8_t* from =
          work.queries.digits + work.head(first + r) * kDigits * dims;
      for (int i = 0; i < kDigits; ++i) {
        std::memcpy(digits + (i * kTileRows + r) * dims, from + i * dims, dims);
      }
    }
    product.n = n;
    for (std::size_t at = 0; at < dims; at += kCodeDepth) {
      product.digits = digits + at;
      product.codes = tile.data + at / 4 * tile.quad_stride;
      product.sums = sums + at;
      multiply_codes(product, work.tiles);
    }
    const auto score = [&](std::size_t begin, auto count) HWY_ATTR {
      PackedScores<kDigits, kAffine>(
          work.shape.units,
          SumsFrom(product, sums, begin),
          work.keys(block) + side.codes_bytes(),
          DigitsOf<kDigits, count()>(work, first + begin),
          block - work.first_block);
    };
    ForCounts<kMostQueries<kDigits>>(n, score);
  });
}

/** Adds the values of a block with sums made on tiles. */
template <int kDigits, bool kAffine>
HWY_NOINLINE void
AddOnTiles(const SpanWork& work, std::size_t block, const ByteTile& tile) {
  alignas(64) std::int32_t sums[kTileRows * kDigits * kMaxHeadDim];
  const KvSide& side = work.shape.layout.value;
  const std::size_t groups = side.groups();
  const std::size_t channels = side.dims / groups;
  CodeProduct product = ProductWith<kDigits, kAffine>(tile, side.dims);
  product.digit_stride = groups * sizeof(SpanWeights<kDigits>);
  product.next_digit = kSpanTokens;
  product.panels = channels / kPanelRows;
  ForTileRows(work.n, [&](std::size_t first, std::size_t n) HWY_ATTR {
    const auto* weights = work.scratch.weights_of<kDigits>(first, groups);
    product.n = n;
    for (std::size_t g = 0; g < groups; ++g) {
      product.digits =
          weights[g].digits[0] + (block - work.first_block) * kBlockTokens;
      product.codes = tile.data + g * product.panels * tile.panel_stride;
      product.sums = sums + g * channels;
      multiply_codes(product, work.tiles);
    }
    const auto add = [&](std::size_t begin, auto count) HWY_ATTR {
      PackedValues<kDigits, kAffine>(
          side,
          SumsFrom(product, sums, begin),
          WeightsOf<kDigits, count()>(work, first + begin),
          block - work.first_block);
    };
    ForCounts<kMostQueries<kDigits>>(n, add);
  });
}

template <int kDigits, bool kAffine>
HWY_INLINE void
ScoreCodes(const SpanWork& work, std::size_t block, const std::byte* next) {
  const KvSide& side = work.shape.layout.key;
  const std::byte* keys = work.keys(block);
  const ByteTile tile = UnpackKeys<kPlanesOf<kDigits, kAffine>>(
      side, keys, work.scratch.codes, next);
  if constexpr (kMayHaveTiles) {
    const bool whole = work.shape.units.size * kCodeDepth == side.dims;
    if (whole && UsesTiles<kDigits>(work)) {
      ScoreOnTiles<kDigits, kAffine>(work, block, tile);
      return;
    }
  }
  constexpr std::size_t kMost = kMostQueries<kDigits>;
  ForGroups<kMost>(work, block, [&](const Group& group) HWY_ATTR {
    WithCount<kMost>(group.n, [&](auto count) HWY_ATTR {
      PackedScores<kDigits, kAffine>(
          work.shape.units,
          tile,
          keys + side.codes_bytes(),
          DigitsOf<kDigits, count()>(work, group.begin),
          block - work.first_block);
    });
  });
}

template <int kDigits, bool kAffine>
HWY_INLINE void
AddCodes(const SpanWork& work, std::size_t block, const std::byte* next) {
  const KvSide& side = work.shape.layout.value;
  const ByteTile tile = UnpackValues<kPlanesOf<kDigits, kAffine>>(
      side, work.values(block), work.scratch.codes, next);
  if constexpr (kMayHaveTiles) {
    // Pairs of panels in groups of one size.
    const std::size_t groups = side.groups();
    const bool whole = side.dims % (groups * 2 * kPanelRows) == 0 &&
        (groups == 1 || side.dims == groups * side.group);
    if (whole && UsesTiles<kDigits>(work)) {
      AddOnTiles<kDigits, kAffine>(work, block, tile);
      return;
    }
  }
  constexpr std::size_t kMost = kMostQueries<kDigits>;
  ForGroups<kMost>(work, block, [&](const Group& group) HWY_ATTR {
    WithCount<kMost>(group.n, [&](auto count) HWY_ATTR {
      PackedValues<kDigits, kAffine>(
          side,
          tile,
          WeightsOf<kDigits, count()>(work, group.begin),
          block - work.first_block);
    });
  });
}

/** Rounds the weights of a span to digits; the sums begin with what does not
 * depend on codes. */
template <int kDigits, bool kAffine>
HWY_INLINE void WeighCodes(const SpanWork& work) {
  const F32 d;
  const KvSide& side = work.shape.layout.value;
  const std::size_t groups = side.groups();
  const int middle = MiddleCode(side);
  SpanWeights<kDigits>* weights = work.scratch.weights_of<kDigits>(0, groups);
  for (std::size_t i = 0; i < work.n * groups; ++i) {
    std::fill_n(weights[i].after, std::size(weights[i].after), 0.0f);
  }
  for (std::size_t b = work.first_block; b < work.last_block; ++b) {
    const std::byte* params = work.values(b) + side.codes_bytes();
    for (std::size_t g = 0; g < groups; ++g) {
      const BlockScales scales =
          LoadScales<kAffine>(params + g * 4 * kBlockTokens, middle);
      for (std::size_t query = 0; query < work.n; ++query) {
        WeighBlock<kDigits, kPlanesOf<kDigits, kAffine>>(
            scales,
            middle,
            work.scores(query, b),
            b - work.first_block,
            weights[query * groups + g]);
      }
    }
  }
  const std::size_t channels = kAffine ? side.group : side.head_dim;
  for (std::size_t i = 0; i < work.n * groups; ++i) {
    const std::size_t from = i % groups * channels;
    const float after = hn::ReduceSum(d, hn::Load(d, weights[i].after));
    if (!std::isfinite(after)) { // digits hold nothing then
      std::fill_n(
          weights[i].scale,
          kSpanBlocks,
          std::numeric_limits<float>::quiet_NaN());
    }
    std::fill_n(
        work.sum(i / groups) + from,
        std::min(channels, side.head_dim - from),
        after);
  }
}

/** Scores of the span with packed keys. */
template <int kDigits>
HWY_INLINE void ScorePacked(const SpanWork& work) {
  const KvSide& side = work.shape.layout.key;
  if (ReadsNibbles<kDigits>(work, side)) {
    ScoreNibbles<kDigits>(work);
    return;
  }
  for (std::size_t b = work.first_block; b < work.last_block; ++b) {
    const std::byte* next = work.after_keys(b);
    FetchRest(side, work.shape.layout.value, next);
    if (side.code == KvCode::Affine) {
      ScoreCodes<kDigits, true>(work, b, next);
    } else {
      ScoreCodes<kDigits, false>(work, b, next);
    }
  }
}

/** Adds the weighted packed values of the span. */
template <int kDigits>
HWY_INLINE void AddPacked(const SpanWork& work) {
  const KvSide& side = work.shape.layout.value;
  const bool affine = side.code == KvCode::Affine;
  if (affine) {
    WeighCodes<kDigits, true>(work);
  } else {
    WeighCodes<kDigits, false>(work);
  }
  if (ReadsNibbles<kDigits>(work, side)) {
    AddNibbles<kDigits>(work);
    return;
  }
  for (std::size_t b = work.first_block; b < work.last_block; ++b) {
    const std::byte* next = work.after_values(b);
    FetchRest(side, work.shape.layout.key, next);
    if (affine) {
      AddCodes<kDigits, true>(work, b, next);
    } else {
      AddCodes<kDigits, false>(work, b, next);
    }
  }
}

} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
