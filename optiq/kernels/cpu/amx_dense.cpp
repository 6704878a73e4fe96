#include <cstring>
#include <limits>

#include "optiq/kernels/cpu/amx_impl.h"
#include "optiq/kernels/cpu/bfloat_parts.h"
#include "optiq/kernels/cpu/elementwise.h"

namespace optiq::kernels::cpu {
namespace {

constexpr std::size_t kParts = BFloatParts::kParts;
constexpr std::size_t kStepInputs = BFloatParts::kStepInputs;
constexpr std::size_t kTileValues = kTileRows * kStepInputs; // of bfloat16
constexpr std::size_t kSums = kTileRows * kTileRows;

// Many rows: tiles of 256 rows of weights and 192 inputs (96 KB) and the sums
// of 256 rows of x (256 KB) are in L2, what two blocks of x have of these
// inputs (36 KB) in L1.
constexpr std::size_t kStripRows = 256;
constexpr std::size_t kStripSteps = 6;
constexpr std::size_t kStripBlocks = 16;
constexpr std::size_t kStripTiles = kStripRows / kTileRows;

/** 32 values of a row of x. */
struct StepOfRow {
  __m512 low;
  __m512 high;
};

OPTIQ_AMX_INLINE __m512 finite_or_zero(__m512 v) {
  return _mm512_maskz_mov_ps(
      _mm512_cmp_ps_mask(
          _mm512_abs_ps(v),
          _mm512_set1_ps(std::numeric_limits<float>::max()),
          _CMP_LE_OQ),
      v);
}

OPTIQ_AMX_INLINE __m512 widen(__m256i halves) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

OPTIQ_AMX_INLINE __m512i nearest(const StepOfRow& v) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(v.high, v.low));
}

/** What is left of v without a part. */
OPTIQ_AMX_INLINE StepOfRow rest_of(const StepOfRow& v, __m512i part) {
  return {
      _mm512_sub_ps(v.low, widen(_mm512_castsi512_si256(part))),
      _mm512_sub_ps(v.high, widen(_mm512_extracti64x4_epi64(part, 1)))};
}

/** Up to 32 inputs of a row, normalized as rms_norm does it. */
OPTIQ_AMX_INLINE StepOfRow load_step(
    const float* x,
    const float* weight,
    float inverse_rms,
    std::size_t inputs) {
  const __mmask16 low = lanes_below(inputs);
  const __mmask16 high =
      lanes_below(inputs - std::min<std::size_t>(16, inputs));
  StepOfRow v{
      _mm512_maskz_loadu_ps(low, x), _mm512_maskz_loadu_ps(high, x + 16)};
  if (weight != nullptr) {
    const __m512 inverse = _mm512_set1_ps(inverse_rms);
    v.low = _mm512_mul_ps(
        _mm512_mul_ps(v.low, inverse), _mm512_maskz_loadu_ps(low, weight));
    v.high = _mm512_mul_ps(
        _mm512_mul_ps(v.high, inverse),
        _mm512_maskz_loadu_ps(high, weight + 16));
  }
  return v;
}

/** One step of a block. */
OPTIQ_AMX void split_step(
    const float* x,
    const float* weight,
    const float* inverse_rms,
    const BFloatParts& to,
    std::size_t block,
    std::size_t step) {
  const auto cols = static_cast<std::size_t>(to.cols);
  const std::size_t first = block * kTileRows;
  const std::size_t at = step * kStepInputs;
  const std::size_t inputs = std::min<std::size_t>(kStepInputs, cols - at);
  const auto width = static_cast<std::size_t>(to.width());
  const std::size_t rows = std::min<std::size_t>(kTileRows, to.rows - first);
  std::uint16_t* const out =
      to.values + block * to.block_values() + step * to.step_values();
  __m512i parts[kParts][kTileRows];
  for (std::size_t r = 0; r < kTileRows; ++r) {
    StepOfRow v{};
    if (r < rows) {
      v = load_step(
          x + (first + r) * cols + at,
          weight == nullptr ? nullptr : weight + at,
          inverse_rms[r],
          inputs);
    }
    parts[2][r] = nearest(v);
    v = rest_of(v, parts[2][r]);
    v = {finite_or_zero(v.low), finite_or_zero(v.high)};
    parts[1][r] = nearest(v);
    parts[0][r] = nearest(rest_of(v, parts[1][r]));
  }
  for (std::size_t part = 0; part < kParts; ++part) {
    std::uint16_t* const tile = out + part * to.part_values();
    if (width == 1) { // pairs follow each other as they are
      _mm512_storeu_si512(tile, parts[part][0]);
      continue;
    }
    transpose(parts[part]);
    for (std::size_t pair = 0; pair < kTileRows; ++pair) {
      _mm512_mask_storeu_epi32(
          tile + pair * 2 * width, lanes_below(width), parts[part][pair]);
    }
  }
}

/** What of a matrix lies outside counts as zeros. */
struct Weights {
  const std::uint16_t* values;
  std::size_t cols;
  std::size_t end; // rows

  /** Whether 32 inputs of n rows are all there. */
  bool has(std::size_t row, std::size_t n, std::size_t at) const {
    return row + n <= end && at + kStepInputs <= cols;
  }
  const std::uint16_t* from(std::size_t row, std::size_t at) const {
    return values + row * cols + at;
  }
};

OPTIQ_AMX_INLINE void copy_tile(
    const Weights& w,
    std::size_t row,
    std::size_t at,
    std::uint16_t* to) {
  const std::size_t inputs = std::min<std::size_t>(kStepInputs, w.cols - at);
  const auto lanes =
      static_cast<__mmask32>(inputs == kStepInputs ? ~0U : (1U << inputs) - 1);
  for (std::size_t r = 0; r < kTileRows; ++r) {
    const bool exists = row + r < w.end;
    _mm512_storeu_si512(
        to + r * kStepInputs,
        _mm512_maskz_loadu_epi16(
            exists ? lanes : __mmask32{0}, exists ? w.from(row + r, at) : to));
  }
}

/** Sums [16 outputs][16 rows] go where rows of results are. */
OPTIQ_AMX void store_transposed(
    const float* sums,
    std::size_t rows,
    std::size_t columns,
    float* y,
    std::size_t stride) {
  __m512i v[kTileRows];
#pragma GCC unroll 16
  for (std::size_t i = 0; i < kTileRows; ++i) {
    v[i] = _mm512_load_si512(sums + i * kTileRows);
  }
  transpose(v);
  const __mmask16 lanes = lanes_below(columns);
#pragma GCC unroll 16
  for (std::size_t r = 0; r < kTileRows; ++r) {
    _mm512_mask_storeu_ps(
        y + r * stride,
        r < rows ? lanes : __mmask16{0},
        _mm512_castsi512_ps(v[r]));
  }
}

/** One block of x times 32 rows of weights at a time, straight from memory,
 * where the next 32 are fetched meanwhile. */
OPTIQ_AMX void multiply_one_block(
    const BFloatParts& x,
    const Weights& w,
    std::size_t first,
    const Output& to) {
  const TilesInUse tiles(x.width());
  const std::size_t x_stride = 4 * static_cast<std::size_t>(x.width());
  alignas(64) float sums[2][kSums] = {};
  alignas(64) std::uint16_t edge[2][kTileValues];
  for (std::size_t row = first; row < w.end; row += 2 * kTileRows) {
    _tile_zero(0);
    _tile_zero(1);
    const std::uint16_t* part = x.values;
    for (std::size_t at = 0; at < w.cols; at += kStepInputs) {
      if (w.has(row, 2 * kTileRows, at)) {
        const std::uint16_t* const from = w.from(row, at);
        for (std::size_t r = 2 * kTileRows; r < 4 * kTileRows; ++r) {
          _mm_prefetch(from + r * w.cols, _MM_HINT_T0);
        }
        _tile_loadd(4, from, 2 * w.cols);
        _tile_loadd(5, from + kTileRows * w.cols, 2 * w.cols);
      } else {
        copy_tile(w, row, at, edge[0]);
        copy_tile(w, row + kTileRows, at, edge[1]);
        asm volatile("" ::: "memory");
        _tile_loadd(4, edge[0], kTileRowBytes);
        _tile_loadd(5, edge[1], kTileRowBytes);
      }
#pragma GCC unroll 3
      for (std::size_t i = 0; i < kParts; ++i) {
        _tile_loadd(6, part, x_stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 5, 6);
        part += x.part_values();
      }
    }
    _tile_stored(0, sums[0], kTileRowBytes);
    _tile_stored(1, sums[1], kTileRowBytes);
    for (std::size_t i = 0; i < 2 && row + i * kTileRows < w.end; ++i) {
      const std::size_t column = row + i * kTileRows;
      store_transposed(
          sums[i],
          static_cast<std::size_t>(x.rows),
          w.end - column,
          to.y + (column - first),
          to.stride);
    }
  }
}

/** Up to 2 x 2 tiles of sums over some steps: those of weights w and of x, and
 * where there are two, of what follows them. */
struct TileSums {
  const std::uint16_t* w = nullptr; // [steps] tiles
  const std::uint16_t* next_w = nullptr;
  const std::uint16_t* x = nullptr; // [steps][kParts] tiles
  const std::uint16_t* next_x = nullptr;
  std::size_t steps = 0;
  float* sums = nullptr; // of w: [x, next x] tiles
  float* next_sums = nullptr;
  bool accumulate = false;
};

template <bool kTwoW, bool kTwoX>
OPTIQ_AMX void add_tiles(const TileSums& t) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  if (t.accumulate) {
    _tile_loadd(0, t.sums, kTileRowBytes);
    if constexpr (kTwoX) {
      _tile_loadd(1, t.sums + kSums, kTileRowBytes);
    }
    if constexpr (kTwoW) {
      _tile_loadd(2, t.next_sums, kTileRowBytes);
    }
    if constexpr (kTwoW && kTwoX) {
      _tile_loadd(3, t.next_sums + kSums, kTileRowBytes);
    }
  }
  for (std::size_t k = 0; k < t.steps; ++k) {
    _tile_loadd(4, t.w + k * kTileValues, kTileRowBytes);
    if constexpr (kTwoW) {
      _tile_loadd(5, t.next_w + k * kTileValues, kTileRowBytes);
    }
#pragma GCC unroll 3
    for (std::size_t i = 0; i < kParts; ++i) {
      const std::size_t part = (k * kParts + i) * kTileValues;
      _tile_loadd(6, t.x + part, kTileRowBytes);
      _tile_dpbf16ps(0, 4, 6);
      if constexpr (kTwoX) {
        _tile_loadd(7, t.next_x + part, kTileRowBytes);
        _tile_dpbf16ps(1, 4, 7);
      }
      if constexpr (kTwoW) {
        _tile_dpbf16ps(2, 5, 6);
      }
      if constexpr (kTwoW && kTwoX) {
        _tile_dpbf16ps(3, 5, 7);
      }
    }
  }
  _tile_stored(0, t.sums, kTileRowBytes);
  if constexpr (kTwoX) {
    _tile_stored(1, t.sums + kSums, kTileRowBytes);
  }
  if constexpr (kTwoW) {
    _tile_stored(2, t.next_sums, kTileRowBytes);
  }
  if constexpr (kTwoW && kTwoX) {
    _tile_stored(3, t.next_sums + kSums, kTileRowBytes);
  }
}

/** As many rows of weights and blocks of x as fit the caches. */
struct Strip {
  std::size_t row; // of the weights, the first
  std::size_t tiles; // of 16 rows
  std::size_t block; // of x, the first
  std::size_t blocks;
};

/** All of a strip's sums over steps [first, last). */
OPTIQ_AMX void add_steps(
    const BFloatParts& x,
    const Strip& strip,
    std::size_t first,
    std::size_t last,
    const std::uint16_t* copies,
    float* sums) {
  const std::size_t steps = last - first;
  for (std::size_t b = 0; b < strip.blocks; b += 2) {
    const std::uint16_t* const from = x.values +
        (strip.block + b) * x.block_values() + first * x.step_values();
    const bool two_x = b + 1 < strip.blocks;
    for (std::size_t t = 0; t < strip.tiles; t += 2) {
      float* const to = sums + (t * strip.blocks + b) * kSums;
      const std::uint16_t* const w = copies + t * steps * kTileValues;
      const TileSums tile{
          .w = w,
          .next_w = w + steps * kTileValues,
          .x = from,
          .next_x = from + x.block_values(),
          .steps = steps,
          .sums = to,
          .next_sums = to + strip.blocks * kSums,
          .accumulate = first > 0};
      if (t + 1 < strip.tiles) {
        two_x ? add_tiles<true, true>(tile) : add_tiles<true, false>(tile);
      } else {
        two_x ? add_tiles<false, true>(tile) : add_tiles<false, false>(tile);
      }
    }
  }
}

OPTIQ_AMX void multiply_strip(
    const BFloatParts& x,
    const Weights& w,
    const Strip& strip,
    const Output& to, // of the strip's first column
    float* scratch) {
  float* const sums = scratch;
  auto* const copies = reinterpret_cast<std::uint16_t*>(
      sums + kStripTiles * kStripBlocks * kSums);
  for (std::size_t first = 0; first < x.steps(); first += kStripSteps) {
    const std::size_t last = std::min(x.steps(), first + kStripSteps);
    std::uint16_t* copy = copies;
    for (std::size_t t = 0; t < strip.tiles; ++t) {
      for (std::size_t step = first; step < last; ++step) {
        copy_tile(w, strip.row + t * kTileRows, step * kStepInputs, copy);
        copy += kTileValues;
      }
    }
    asm volatile("" ::: "memory"); // loads of tiles do not say what they read
    add_steps(x, strip, first, last, copies, sums);
  }
  for (std::size_t b = 0; b < strip.blocks; ++b) {
    const std::size_t row = (strip.block + b) * kTileRows;
    for (std::size_t t = 0; t < strip.tiles; ++t) {
      store_transposed(
          sums + (t * strip.blocks + b) * kSums,
          std::min<std::size_t>(kTileRows, x.rows - row),
          w.end - (strip.row + t * kTileRows),
          to.y + row * to.stride + t * kTileRows,
          to.stride);
    }
  }
}

} // namespace

void split_rows(
    const float* x,
    const RowNorm& norm,
    const BFloatParts& to,
    std::size_t first,
    std::size_t last) {
  const std::size_t steps = to.steps();
  float inverse_rms[kTileRows] = {};
  for (std::size_t task = first; task < last; ++task) {
    const std::size_t block = task / steps;
    if (norm.weight != nullptr && (task == first || task % steps == 0)) {
      const std::size_t row = block * kTileRows;
      const std::size_t rows = std::min<std::size_t>(kTileRows, to.rows - row);
      for (std::size_t r = 0; r < rows; ++r) {
        inverse_rms[r] = kernels::cpu::inverse_rms(
            x + (row + r) * to.cols, to.cols, norm.eps);
      }
    }
    split_step(x, norm.weight, inverse_rms, to, block, task % steps);
  }
}

std::size_t parts_scratch(int rows) {
  if (static_cast<std::size_t>(rows) <= kTileRows) {
    return 0;
  }
  return kStripTiles * kStripBlocks * kSums +
      kStripTiles * kStripSteps * kTileValues / 2;
}

OPTIQ_AMX void multiply_parts(
    const BFloatParts& x,
    const std::uint16_t* weights,
    std::size_t first,
    std::size_t last,
    const Output& to,
    float* scratch) {
  const Weights w{weights, static_cast<std::size_t>(x.cols), last};
  if (x.blocks() == 1) {
    multiply_one_block(x, w, first, to);
    return;
  }
  const TilesInUse tiles(kTileRows);
  for (std::size_t row = first; row < last; row += kStripRows) {
    const std::size_t rows = std::min(kStripRows, last - row);
    for (std::size_t block = 0; block < x.blocks(); block += kStripBlocks) {
      multiply_strip(
          x,
          w,
          {row,
           (rows + kTileRows - 1) / kTileRows,
           block,
           std::min(kStripBlocks, x.blocks() - block)},
          {to.y + (row - first), to.stride},
          scratch);
    }
  }
}

} // namespace optiq::kernels::cpu
