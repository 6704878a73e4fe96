// Products of queries with packed keys and values; included once per SIMD
// target. Digits of queries and weights meet the tiles of packed_tiles-inl.h,
// or 4-bit codes as they lie where few queries read them: one digit or, exact,
// three, of which turbo's centroids then have as many (planes). Products of
// digit i and plane j are summed in place i + j.
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
#include "optiq/kernels/cpu/packed_digits-inl.h"
#include "optiq/kernels/cpu/packed_tiles-inl.h"
#include "optiq/kernels/cpu/packed_weights-inl.h"
#include "optiq/kernels/cpu/panel_kernel-inl.h"
#include "optiq/kernels/cpu/prefetch.h"
#include "optiq/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {

// Vectors of lanes multiplied together by each of several queries.
template <int kDigits, std::size_t R>
constexpr std::size_t kVectors = (HWY_MAX_BYTES >= 64 ? 4 : 2) /
    (kDigits > 1 && R > 1 ? 2 : 1);

// Bytes for a code: turbo's centroids have as many as queries have digits.
template <int kDigits, bool kAffine>
constexpr int kPlanesOf = kAffine ? 1 : kDigits;

// Queries multiplied together: their sums must fit the registers.
template <int kDigits>
constexpr std::size_t kMostQueries = kDigits > 1
    ? std::min<std::size_t>(3, kMaxQueries)
    : kMaxQueries;

/** The four digits of a quad, for every lane. */
HWY_INLINE hn::Vec<PanelI8> QuadDigits(const std::int8_t* digits) {
  std::int32_t cell;
  std::memcpy(&cell, digits, 4);
  return hn::BitCast(PanelI8(), hn::Set(PanelI32(), cell));
}

/** The first digits of R queries, and how far the next ones lie behind. */
template <std::size_t R>
struct Digits {
  const std::int8_t* first[R];
  std::size_t stride = 0;
};

/** sums[r][i + j][v] += sum over quads of dot4(plane j of the tile, digit i of
 * r), for the P vectors of lanes from `vector` on. */
template <int kDigits, int kPlanes, std::size_t R, std::size_t P>
HWY_INLINE void DotQuads(
    const ByteTile& tile,
    std::size_t first_quad,
    std::size_t quads,
    std::size_t vector,
    const Digits<R>& digits,
    hn::Vec<PanelI32> (&sums)[R][kDigits][P]) {
  const PanelI32 di;
  const std::uint8_t* data[P];
  for (std::size_t v = 0; v < P; ++v) {
    const std::size_t lane = (vector + v) * kLanes;
    data[v] = tile.data + first_quad * tile.quad_stride +
        lane / kPanelRows * tile.panel_stride + lane % kPanelRows * 4;
  }
  for (std::size_t quad = 0; quad < quads; ++quad) {
    for (int j = 0; j < kPlanes; ++j) {
      hn::Vec<PanelU8> codes[P];
      for (std::size_t v = 0; v < P; ++v) {
        codes[v] = hn::LoadU(
            PanelU8(),
            data[v] + quad * tile.quad_stride + j * tile.plane_stride);
      }
      for (std::size_t r = 0; r < R; ++r) {
        for (int i = 0; i + j < kDigits; ++i) {
          const auto x = QuadDigits(
              digits.first[r] + i * digits.stride + 4 * (first_quad + quad));
          for (std::size_t v = 0; v < P; ++v) {
            sums[r][i + j][v] =
                hn::SumOfMulQuadAccumulate(di, codes[v], x, sums[r][i + j][v]);
          }
        }
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
template <int kDigits, int kPlanes, std::size_t R, std::size_t P, bool kLook>
HWY_INLINE void DotQuads(
    const NibbleTile<kLook>& tile,
    std::size_t first_quad,
    std::size_t quads,
    std::size_t vector,
    const Digits<R>& digits,
    hn::Vec<PanelI32> (&sums)[R][kDigits][P]) {
  static_assert(kPlanes == 1);
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
    hn::Vec<PanelU8> codes[2][P];
    for (std::size_t v = 0; v < P; ++v) {
      const std::size_t byte = at[v] + quad / 2 * kVectorBytes;
      if (tile.next != nullptr) {
        prefetch_far(tile.next + byte);
      }
      const auto both = hn::LoadU(d8, tile.data + byte);
      const auto upper =
          hn::BitCast(d8, hn::ShiftRight<4>(hn::BitCast(du, both)));
      codes[0][v] = LookNibble(tile, hn::And(both, fifteen));
      codes[1][v] = LookNibble(tile, hn::And(upper, fifteen));
    }
    for (std::size_t half = 0; half < 2; ++half) {
      for (std::size_t r = 0; r < R; ++r) {
        for (int i = 0; i < kDigits; ++i) {
          const auto x = QuadDigits(
              digits.first[r] + i * digits.stride +
              4 * (first_quad + quad + half));
          for (std::size_t v = 0; v < P; ++v) {
            sums[r][i][v] = AddDot4<kCode>(codes[half][v], x, sums[r][i][v]);
          }
        }
      }
    }
  }
}

/** Sums that exist (amx_codes.h): of row r and a place, [lanes] for each 64
 * inputs. */
struct SumTile {
  const std::int32_t* sums = nullptr;
  std::size_t row_stride = 0;
  std::size_t place_stride = 0;
};

/** Adds them. */
template <int kDigits, int kPlanes, std::size_t R, std::size_t P>
HWY_INLINE void DotQuads(
    const SumTile& tile,
    std::size_t first_quad,
    std::size_t /*quads*/,
    std::size_t vector,
    const Digits<R>& /*digits*/,
    hn::Vec<PanelI32> (&sums)[R][kDigits][P]) {
  const std::size_t at = 4 * first_quad + vector * kLanes;
  for (std::size_t r = 0; r < R; ++r) {
    for (int place = 0; place < kDigits; ++place) {
      for (std::size_t v = 0; v < P; ++v) {
        const std::int32_t* more = tile.sums + r * tile.row_stride +
            place * tile.place_stride + at + v * kLanes;
        sums[r][place][v] =
            hn::Add(sums[r][place][v], hn::LoadU(PanelI32(), more));
      }
    }
  }
}

/** Digits and factors of the queries multiplied together, and where their
 * scores with a span go. */
template <std::size_t R>
struct DigitRows {
  Digits<R> digits;
  const KeyFactors* factors[R];
  float* scores[R];
};

/** scores[r][t] of the P vectors of tokens from `vector` on. */
template <int kDigits, bool kAffine, std::size_t R, std::size_t P, class Tile>
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
    hn::Vec<PanelI32> sums[R][kDigits][P];
    for (std::size_t r = 0; r < R; ++r) {
      for (int i = 0; i < kDigits; ++i) {
        for (std::size_t v = 0; v < P; ++v) {
          sums[r][i][v] = kAffine
              ? hn::Zero(PanelI32())
              : hn::Set(PanelI32(), rows.factors[r][u].before[i]);
        }
      }
    }
    DotQuads<kDigits, kPlanesOf<kDigits, kAffine>>(
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
        const KeyFactors& factors = rows.factors[r][u];
        const VF32 sum = JoinPlaces<kDigits>(sums[r], v);
        const VF32 factor = hn::Set(d, factors.scale);
        if constexpr (kAffine) {
          f[r][v] = hn::MulAdd(sum, hn::Mul(scale, factor), f[r][v]);
          f[r][v] = hn::MulAdd(bias, hn::Set(d, factors.bias), f[r][v]);
        } else {
          f[r][v] = hn::MulAdd(sum, factor, f[r][v]);
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
template <int kDigits, bool kAffine, std::size_t R, class Tile>
HWY_NOINLINE void PackedScores(
    const KeyUnits& units,
    const Tile& tile,
    const std::byte* params,
    const DigitRows<R>& rows,
    std::size_t block) {
  constexpr std::size_t kP = kVectors<kDigits, R>;
  for (std::size_t v = 0; v < kBlockTokens / kLanes; v += kP) {
    ScoreVectors<kDigits, kAffine, R, kP>(units, tile, params, rows, v, block);
  }
}

/** Weights of the queries multiplied together, [groups] each, and their sums.
 */
template <int kDigits, std::size_t R>
struct WeightRows {
  const SpanWeights<kDigits>* weights[R];
  float* sums[R];
};

/** What a block and a group of values are multiplied by. */
template <int kDigits, std::size_t R>
struct BlockWeights {
  Digits<R> digits;
  const std::int32_t* before[R];
  float scale[R];

  BlockWeights(
      const WeightRows<kDigits, R>& rows,
      std::size_t block,
      std::size_t group,
      float step) {
    digits.stride = kSpanTokens;
    for (std::size_t r = 0; r < R; ++r) {
      const SpanWeights<kDigits>& w = rows.weights[r][group];
      digits.first[r] = w.digits[0] + block * kBlockTokens;
      before[r] = w.before[block];
      scale[r] = w.scale[block] * step;
    }
  }
};

/** out[r][channel..] += of P vectors of channels from `vector` on. */
template <int kDigits, int kPlanes, std::size_t R, std::size_t P, class Tile>
HWY_INLINE void AddVectors(
    const Tile& tile,
    std::size_t vector,
    const BlockWeights<kDigits, R>& rows,
    float* const* out) {
  const F32 d;
  hn::Vec<PanelI32> sums[R][kDigits][P];
  for (std::size_t r = 0; r < R; ++r) {
    for (int i = 0; i < kDigits; ++i) {
      for (std::size_t v = 0; v < P; ++v) {
        sums[r][i][v] = hn::Set(PanelI32(), rows.before[r][i]);
      }
    }
  }
  DotQuads<kDigits, kPlanes>(tile, 0, kTokenQuads, vector, rows.digits, sums);
  for (std::size_t r = 0; r < R; ++r) {
    const VF32 scale = hn::Set(d, rows.scale[r]);
    for (std::size_t v = 0; v < P; ++v) {
      float* to = out[r] + (vector + v) * kLanes;
      const VF32 sum = JoinPlaces<kDigits>(sums[r], v);
      hn::StoreU(hn::MulAdd(sum, scale, hn::LoadU(d, to)), d, to);
    }
  }
}

/** Channels [from, to), of one group and width. */
template <int kDigits, int kPlanes, std::size_t R, class Tile>
HWY_INLINE void AddChannels(
    const Tile& tile,
    std::size_t from,
    std::size_t to,
    const BlockWeights<kDigits, R>& rows,
    float* const* out) {
  constexpr std::size_t kP = kVectors<kDigits, R>;
  std::size_t v = from / kLanes;
  for (; (v + kP) * kLanes <= to; v += kP) {
    AddVectors<kDigits, kPlanes, R, kP>(tile, v, rows, out);
  }
  for (; v * kLanes < to; ++v) {
    AddVectors<kDigits, kPlanes, R, 1>(tile, v, rows, out);
  }
}

/** sums[r][channel] += sum over tokens of p[r][t] (v_t - what `after` holds),
 * of a block of the span. */
template <int kDigits, bool kAffine, std::size_t R, class Tile>
HWY_NOINLINE void PackedValues(
    const KvSide& side,
    const Tile& tile,
    const WeightRows<kDigits, R>& rows,
    std::size_t block) {
  const auto add =
      [&](std::size_t from, std::size_t to, std::size_t group, float step)
          HWY_ATTR {
            const BlockWeights<kDigits, R> weights(rows, block, group, step);
            AddChannels<kDigits, kPlanesOf<kDigits, kAffine>, R>(
                tile, from, to, weights, rows.sums);
          };
  if constexpr (kAffine) {
    std::size_t group = 0;
    for (std::size_t from = 0; from < side.head_dim; from += side.group) {
      const std::size_t to = std::min(side.head_dim, from + side.group);
      add(from, to, group++, 1.0f);
    }
  } else {
    const float shrink = 1.0f / std::sqrt(static_cast<float>(side.head_dim));
    if (side.wide > 0) {
      add(0, side.wide, 0, side.wide_table->step * shrink);
    }
    add(side.wide, side.head_dim, 0, side.table->step * shrink);
  }
}

} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
