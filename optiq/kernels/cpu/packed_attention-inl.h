// Products of queries with packed keys and values; included once per SIMD
// target. Queries meet the tiles of packed_tiles-inl.h, or 4-bit codes as they
// lie where few queries read them.
#if defined(OPTIQ_KERNELS_CPU_PACKED_ATTENTION_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef OPTIQ_KERNELS_CPU_PACKED_ATTENTION_INL_H_
#undef OPTIQ_KERNELS_CPU_PACKED_ATTENTION_INL_H_
#else
#define OPTIQ_KERNELS_CPU_PACKED_ATTENTION_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

#include "optiq/kernels/cpu/attention.h"
#include "optiq/kernels/cpu/attention_scratch_impl.h"
#include "optiq/kernels/cpu/dense_attention-inl.h"
#include "optiq/kernels/cpu/packed_tiles-inl.h"
#include "optiq/kernels/cpu/packed_weights-inl.h"
#include "optiq/kernels/cpu/panel_kernel-inl.h"
#include "optiq/kernels/cpu/prefetch.h"
#include "optiq/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {

// Vectors of lanes multiplied together by each of kMaxQueries queries.
constexpr std::size_t kVectors = HWY_MAX_BYTES >= 64 ? 4 : 2;

/** The four digits of a quad, for every lane. */
HWY_INLINE hn::Vec<PanelI8> QuadDigits(const std::int8_t* digits) {
  std::int32_t cell;
  std::memcpy(&cell, digits, 4);
  return hn::BitCast(PanelI8(), hn::Set(PanelI32(), cell));
}

/** sums[r][v] += sum over quads of dot4(tile, digits[r]), for the P vectors of
 * lanes from `vector` on. */
template <std::size_t R, std::size_t P>
HWY_INLINE void DotQuads(
    const ByteTile& tile,
    std::size_t first_quad,
    std::size_t quads,
    std::size_t vector,
    const std::int8_t* const* digits,
    hn::Vec<PanelI32> (&sums)[R][P]) {
  const PanelI32 di;
  const std::uint8_t* data[P];
  for (std::size_t v = 0; v < P; ++v) {
    const std::size_t lane = (vector + v) * kLanes;
    data[v] = tile.data + first_quad * tile.quad_stride +
        lane / kPanelRows * tile.panel_stride + lane % kPanelRows * 4;
  }
  for (std::size_t quad = 0; quad < quads; ++quad) {
    hn::Vec<PanelU8> codes[P];
    for (std::size_t v = 0; v < P; ++v) {
      codes[v] = hn::LoadU(PanelU8(), data[v] + quad * tile.quad_stride);
    }
    for (std::size_t r = 0; r < R; ++r) {
      const auto x = QuadDigits(digits[r] + 4 * (first_quad + quad));
      for (std::size_t v = 0; v < P; ++v) {
        sums[r][v] = hn::SumOfMulQuadAccumulate(di, codes[v], x, sums[r][v]);
      }
    }
  }
}

template <bool kLook>
HWY_INLINE hn::Vec<PanelU8> LookNibble(
    const NibbleTile<kLook>& tile,
    hn::Vec<PanelU8> code) {
  if constexpr (kLook) {
    return tile.table.template Look<4>(code);
  } else {
    return code;
  }
}

/** The same from nibbles; the sums are exact, so they are the same numbers. */
template <std::size_t R, std::size_t P, bool kLook>
HWY_INLINE void DotQuads(
    const NibbleTile<kLook>& tile,
    std::size_t first_quad,
    std::size_t quads,
    std::size_t vector,
    const std::int8_t* const* digits,
    hn::Vec<PanelI32> (&sums)[R][P]) {
  constexpr int kCode = kLook ? 8 : 4; // bits of what meets a digit
  const PanelU32 du;
  const PanelU8 d8;
  std::size_t at[P];
  for (std::size_t v = 0; v < P; ++v) {
    const std::size_t lane = (vector + v) * kLanes;
    at[v] = first_quad / 2 * kVectorBytes +
        lane / kPanelRows * tile.panel_stride + lane % kPanelRows * 4;
  }
  const auto fifteen = hn::Set(d8, std::uint8_t{15});
  for (std::size_t quad = 0; quad < quads; quad += 2) {
    hn::Vec<PanelU8> low[P];
    hn::Vec<PanelU8> high[P];
    for (std::size_t v = 0; v < P; ++v) {
      const std::size_t byte = at[v] + quad / 2 * kVectorBytes;
      if (tile.next != nullptr) {
        prefetch_far(tile.next + byte);
      }
      const auto both = hn::LoadU(d8, tile.data + byte);
      const auto upper =
          hn::BitCast(d8, hn::ShiftRight<4>(hn::BitCast(du, both)));
      low[v] = LookNibble(tile, hn::And(both, fifteen));
      high[v] = LookNibble(tile, hn::And(upper, fifteen));
    }
    for (std::size_t r = 0; r < R; ++r) {
      const auto x0 = QuadDigits(digits[r] + 4 * (first_quad + quad));
      for (std::size_t v = 0; v < P; ++v) {
        sums[r][v] = AddDot4<kCode>(low[v], x0, sums[r][v]);
      }
    }
    for (std::size_t r = 0; r < R; ++r) {
      const auto x1 = QuadDigits(digits[r] + 4 * (first_quad + quad + 1));
      for (std::size_t v = 0; v < P; ++v) {
        sums[r][v] = AddDot4<kCode>(high[v], x1, sums[r][v]);
      }
    }
  }
}

/** Digits and factors of the queries multiplied together, and where their
 * scores with a span go. */
template <std::size_t R>
struct DigitRows {
  const std::int8_t* digits[R];
  const float* factors[R];
  float* scores[R];
};

/** scores[r][t] of the P vectors of tokens from `vector` on. */
template <bool kAffine, std::size_t R, std::size_t P, class Tile>
HWY_INLINE void ScoreVectors(
    const KeyUnits& units,
    const Tile& tile,
    const std::byte* params,
    const DigitRows<R>& rows,
    std::size_t vector,
    std::size_t block) {
  const F32 d;
  const std::size_t token = vector * kLanes;
  VF32 f[R][P];
  for (std::size_t r = 0; r < R; ++r) {
    for (std::size_t v = 0; v < P; ++v) {
      f[r][v] = hn::Zero(d);
    }
  }
  for (std::size_t u = 0; u < units.size; ++u) {
    const KeyUnit& unit = units.units[u];
    hn::Vec<PanelI32> sums[R][P];
    for (std::size_t r = 0; r < R; ++r) {
      for (std::size_t v = 0; v < P; ++v) {
        sums[r][v] = hn::Zero(PanelI32());
      }
    }
    DotQuads(
        tile, unit.channel / 4, unit.channels / 4, vector, rows.digits, sums);
    for (std::size_t v = 0; v < P; ++v) {
      VF32 scale = hn::Zero(d);
      VF32 bias = hn::Zero(d);
      if constexpr (kAffine) {
        const auto* at = reinterpret_cast<const hwy::bfloat16_t*>(params) +
            unit.group * 2 * kBlockTokens + token + v * kLanes;
        scale = LoadHalf(at);
        bias = LoadHalf(at + kBlockTokens);
      }
      for (std::size_t r = 0; r < R; ++r) {
        const VF32 sum = hn::ConvertTo(d, sums[r][v]);
        const VF32 factor = hn::Set(d, rows.factors[r][2 * u]);
        const VF32 offset = hn::Set(d, rows.factors[r][2 * u + 1]);
        if constexpr (kAffine) {
          f[r][v] = hn::MulAdd(sum, hn::Mul(scale, factor), f[r][v]);
          f[r][v] = hn::MulAdd(bias, offset, f[r][v]);
        } else {
          f[r][v] = hn::MulAdd(hn::Sub(sum, offset), factor, f[r][v]);
        }
      }
    }
  }
  for (std::size_t v = 0; v < P; ++v) {
    const std::size_t at = token + v * kLanes;
    for (std::size_t r = 0; r < R; ++r) {
      VF32 score = f[r][v];
      if constexpr (!kAffine) {
        score = hn::Mul(
            score,
            LoadHalf(reinterpret_cast<const hwy::float16_t*>(params) + at));
      }
      hn::StoreU(score, d, rows.scores[r] + block * kBlockTokens + at);
    }
  }
}

/** Scores with a block of the span. */
template <bool kAffine, std::size_t R, class Tile>
HWY_NOINLINE void PackedScores(
    const KeyUnits& units,
    const Tile& tile,
    const std::byte* params,
    const DigitRows<R>& rows,
    std::size_t block) {
  for (std::size_t v = 0; v < kBlockTokens / kLanes; v += kVectors) {
    ScoreVectors<kAffine, R, kVectors>(units, tile, params, rows, v, block);
  }
}

/** Weights of the queries multiplied together, [groups] each, and their sums.
 */
template <std::size_t R>
struct WeightRows {
  const SpanWeights* weights[R];
  float* sums[R];
};

/** What a block and a group of values are multiplied by. */
template <std::size_t R>
struct BlockWeights {
  const std::int8_t* digits[R];
  std::int32_t before[R];
  float scale[R];

  BlockWeights(
      const WeightRows<R>& rows,
      std::size_t block,
      std::size_t group,
      float step) {
    for (std::size_t r = 0; r < R; ++r) {
      const SpanWeights& w = rows.weights[r][group];
      digits[r] = w.digits + block * kBlockTokens;
      before[r] = w.before[block];
      scale[r] = w.scale[block] * step;
    }
  }
};

/** out[r][channel..] += of P vectors of channels from `vector` on. */
template <std::size_t R, std::size_t P, class Tile>
HWY_INLINE void AddVectors(
    const Tile& tile,
    std::size_t vector,
    const BlockWeights<R>& rows,
    float* const* out) {
  const F32 d;
  hn::Vec<PanelI32> sums[R][P];
  for (std::size_t r = 0; r < R; ++r) {
    for (std::size_t v = 0; v < P; ++v) {
      sums[r][v] = hn::Set(PanelI32(), rows.before[r]);
    }
  }
  DotQuads(tile, 0, kTokenQuads, vector, rows.digits, sums);
  for (std::size_t r = 0; r < R; ++r) {
    const VF32 scale = hn::Set(d, rows.scale[r]);
    for (std::size_t v = 0; v < P; ++v) {
      float* to = out[r] + (vector + v) * kLanes;
      const VF32 sum = hn::ConvertTo(d, sums[r][v]);
      hn::StoreU(hn::MulAdd(sum, scale, hn::LoadU(d, to)), d, to);
    }
  }
}

/** Channels [from, to), of one group and width. */
template <std::size_t R, class Tile>
HWY_INLINE void AddChannels(
    const Tile& tile,
    std::size_t from,
    std::size_t to,
    const BlockWeights<R>& rows,
    float* const* out) {
  std::size_t v = from / kLanes;
  for (; (v + kVectors) * kLanes <= to; v += kVectors) {
    AddVectors<R, kVectors>(tile, v, rows, out);
  }
  for (; v * kLanes < to; ++v) {
    AddVectors<R, 1>(tile, v, rows, out);
  }
}

/** sums[r][channel] += sum over tokens of p[r][t] (v_t - what `after` holds),
 * of a block of the span. */
template <std::size_t R, class Tile>
HWY_NOINLINE void PackedValues(
    const KvSide& side,
    const Tile& tile,
    const WeightRows<R>& rows,
    std::size_t block) {
  if (side.code == KvCode::Affine) {
    std::size_t group = 0;
    for (std::size_t from = 0; from < side.head_dim; from += side.group) {
      const std::size_t to = std::min(side.head_dim, from + side.group);
      const BlockWeights<R> weights(rows, block, group++, 1.0f);
      AddChannels<R>(tile, from, to, weights, rows.sums);
    }
    return;
  }
  const float shrink = 1.0f / std::sqrt(static_cast<float>(side.head_dim));
  if (side.wide > 0) {
    const float step = side.wide_table->step * shrink;
    const BlockWeights<R> weights(rows, block, 0, step);
    AddChannels<R>(tile, 0, side.wide, weights, rows.sums);
  }
  const float step = side.table->step * shrink;
  const BlockWeights<R> weights(rows, block, 0, step);
  AddChannels<R>(tile, side.wide, side.head_dim, weights, rows.sums);
}

/** Byte `input` of the cells of lanes from `vector` on, as integers. */
HWY_INLINE hn::Vec<PanelI32>
CodesOf(const ByteTile& tile, std::size_t input, std::size_t vector) {
  const PanelI32 di;
  const std::size_t lane = vector * kLanes;
  const auto cells = hn::BitCast(
      di,
      hn::LoadU(
          PanelU8(),
          tile.data + input / 4 * tile.quad_stride +
              lane / kPanelRows * tile.panel_stride + lane % kPanelRows * 4));
  const int shift = static_cast<int>(8 * (input % 4));
  return hn::And(hn::ShiftRightSame(cells, shift), hn::Set(di, 255));
}

/** K^T [head_dim][64] in float32, from a tile of codes. */
HWY_NOINLINE void DecodeKeys(
    const KvSide& side,
    const ByteTile& tile,
    const std::byte* params,
    float* to) {
  const F32 d;
  const float shrink = 1.0f / std::sqrt(static_cast<float>(side.head_dim));
  for (std::size_t i = 0; i < side.head_dim; ++i) {
    for (std::size_t v = 0; v < kBlockTokens / kLanes; ++v) {
      const std::size_t token = v * kLanes;
      const auto codes = CodesOf(tile, i, v);
      VF32 x = hn::Zero(d);
      if (side.code == KvCode::Affine) {
        const auto* scale = reinterpret_cast<const hwy::bfloat16_t*>(params) +
            i / side.group * 2 * kBlockTokens + token;
        x = hn::MulAdd(
            hn::ConvertTo(d, codes),
            LoadHalf(scale),
            LoadHalf(scale + kBlockTokens));
      } else {
        const float* centroids = side.table_of(i).centroids.data();
        const VF32 norm =
            LoadHalf(reinterpret_cast<const hwy::float16_t*>(params) + token);
        x = hn::Mul(
            hn::GatherIndex(d, centroids, codes),
            hn::Mul(norm, hn::Set(d, shrink)));
      }
      hn::StoreU(x, d, to + i * kBlockTokens + token);
    }
  }
}

/** V [64][head_dim] in float32, from a tile of codes. */
HWY_NOINLINE void DecodeValues(
    const KvSide& side,
    const ByteTile& tile,
    const std::byte* params,
    float* to) {
  const F32 d;
  const float shrink = 1.0f / std::sqrt(static_cast<float>(side.head_dim));
  for (std::size_t t = 0; t < kBlockTokens; ++t) {
    for (std::size_t v = 0; v * kLanes < side.head_dim; ++v) {
      const std::size_t channel = v * kLanes;
      const auto codes = CodesOf(tile, t, v);
      VF32 x = hn::Zero(d);
      if (side.code == KvCode::Affine) {
        const auto* scale = reinterpret_cast<const hwy::bfloat16_t*>(params) +
            channel / side.group * 2 * kBlockTokens + t;
        x = hn::MulAdd(
            hn::ConvertTo(d, codes),
            hn::Set(d, hwy::F32FromBF16(scale[0])),
            hn::Set(d, hwy::F32FromBF16(scale[kBlockTokens])));
      } else {
        const float* centroids = side.table_of(channel).centroids.data();
        const float norm =
            hwy::F32FromF16(reinterpret_cast<const hwy::float16_t*>(params)[t]);
        x = hn::Mul(
            hn::GatherIndex(d, centroids, codes), hn::Set(d, norm * shrink));
      }
      hn::StoreU(x, d, to + t * side.head_dim + channel);
    }
  }
}

} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
