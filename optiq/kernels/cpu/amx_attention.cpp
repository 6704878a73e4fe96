#include "optiq/kernels/cpu/amx_attention.h"

#include <algorithm>
#include <cstring>

#include "optiq/kernels/cpu/amx.h"
#include "optiq/kernels/cpu/amx_impl.h"
#include "optiq/kernels/cpu/kv_layout.h"

namespace optiq::kernels::cpu {
namespace {

constexpr std::size_t kPairBytes = 4;
constexpr std::size_t kStep = 32; // channels or tokens of a tile
constexpr std::size_t kMostDim = 256;
constexpr std::size_t kTokenTiles = kBlockTokens / kTileRows;
constexpr std::size_t kLineBytes = 64;

/** Share `part` of `parts` of the bytes [next, next + n). */
OPTIQ_AMX_INLINE void fetch(
    const std::byte* next,
    std::size_t n,
    std::size_t part,
    std::size_t parts) {
  if (next == nullptr) {
    return;
  }
  const std::size_t end = n * (part + 1) / parts;
  for (std::size_t at = n * part / parts; at < end; at += kLineBytes) {
    _mm_prefetch(next + at, _MM_HINT_T1);
  }
}

/** Scores of up to 16 queries with two tiles of tokens at a time. */
OPTIQ_AMX void
score_rows(const KeyTiles& t, const std::uint16_t* queries, float* scores) {
  const std::size_t row_bytes = kBlockTokens * kPairBytes;
  for (std::size_t i = 0; i < kTokenTiles; i += 2) {
    const std::byte* keys = t.keys + i * kTileRowBytes;
    fetch(
        t.next,
        t.head_dim * kBlockTokens * sizeof(std::uint16_t),
        i / 2,
        kTokenTiles / 2);
    _tile_zero(0);
    _tile_zero(1);
    for (std::size_t at = 0; at < t.head_dim; at += kStep) {
      _tile_loadd(4, queries + at, t.head_dim * sizeof(*queries));
      _tile_loadd(6, keys, row_bytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, keys + kTileRowBytes, row_bytes);
      _tile_dpbf16ps(1, 4, 7);
      keys += kStep / 2 * row_bytes;
    }
    _tile_stored(0, scores + i * kTileRows, t.stride * sizeof(float));
    _tile_stored(1, scores + (i + 1) * kTileRows, t.stride * sizeof(float));
  }
}

/** Sums of up to 16 queries and two tiles of channels. */
OPTIQ_AMX_INLINE void add_channels(
    const ValueTiles& t,
    const std::uint16_t* weights,
    float* sums,
    std::size_t channel) {
  const std::size_t row_bytes = t.head_dim * kPairBytes;
  const std::size_t sum_bytes = t.stride * sizeof(float);
  const std::byte* values = t.values + channel * kPairBytes;
  float* const to = sums + channel;
  _tile_loadd(0, to, sum_bytes);
  _tile_loadd(1, to + kTileRows, sum_bytes);
  for (std::size_t at = 0; at < kBlockTokens; at += kStep) {
    _tile_loadd(4, weights + at, t.weight_stride * sizeof(*weights));
    _tile_loadd(6, values, row_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, values + kTileRowBytes, row_bytes);
    _tile_dpbf16ps(1, 4, 7);
    values += kStep / 2 * row_bytes;
  }
  _tile_stored(0, to, sum_bytes);
  _tile_stored(1, to + kTileRows, sum_bytes);
}

OPTIQ_AMX void
add_rows(const ValueTiles& t, const std::uint16_t* weights, float* sums) {
  const std::size_t bytes = t.head_dim * kBlockTokens * sizeof(std::uint16_t);
  for (std::size_t channel = 0; channel < t.head_dim; channel += kStep) {
    fetch(t.next, bytes, channel / kStep, t.head_dim / kStep);
    add_channels(t, weights, sums, channel);
  }
}

// Members were declared for every machine.
OPTIQ_AMX void configure(std::size_t rows) {
  configure_tiles(kTileRows, rows);
}
OPTIQ_AMX void release() {
  release_tiles();
}

} // namespace

bool attends_on_tiles(std::size_t head_dim) {
  return head_dim % kStep == 0 && head_dim <= kMostDim && uses_amx();
}

QueryTiles::~QueryTiles() {
  if (rows_ > 0) {
    release();
  }
}

void QueryTiles::set_rows(std::size_t rows) {
  if (rows != rows_) {
    configure(rows);
    rows_ = rows;
  }
}

void score_tiles(const KeyTiles& tiles, QueryTiles& shape) {
  alignas(64) std::uint16_t queries[kTileRows * kMostDim];
  KeyTiles t = tiles;
  for (std::size_t first = 0; first < t.n; first += kTileRows) {
    const std::size_t rows = std::min<std::size_t>(kTileRows, t.n - first);
    for (std::size_t r = 0; r < rows; ++r) {
      std::memcpy(
          queries + r * t.head_dim,
          t.queries[first + r],
          t.head_dim * sizeof(*queries));
    }
    shape.set_rows(rows);
    score_rows(t, queries, t.scores + first * t.stride);
    t.next = nullptr; // asked for once
  }
}

void add_value_tiles(const ValueTiles& tiles, QueryTiles& shape) {
  ValueTiles t = tiles;
  for (std::size_t first = 0; first < t.n; first += kTileRows) {
    const std::size_t rows = std::min<std::size_t>(kTileRows, t.n - first);
    shape.set_rows(rows);
    add_rows(t, t.weights + first * t.weight_stride, t.sums + first * t.stride);
    t.next = nullptr;
  }
}

OPTIQ_AMX bool all_finite(const std::byte* values, std::size_t head_dim) {
  const __m512i exponent = _mm512_set1_epi16(0x7f80);
  const std::size_t bytes = head_dim * kBlockTokens * sizeof(std::uint16_t);
  __mmask32 found = 0;
  for (std::size_t at = 0; at < bytes; at += kLineBytes) {
    const __m512i v = _mm512_loadu_si512(values + at);
    found |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(v, exponent), exponent);
  }
  return found == 0;
}

void copy_tokens(
    const std::byte* values,
    std::size_t head_dim,
    std::size_t begin,
    std::size_t end,
    std::byte* to) {
  const auto* from = reinterpret_cast<const std::uint16_t*>(values);
  auto* copy = reinterpret_cast<std::uint16_t*>(to);
  for (std::size_t t = 0; t < kBlockTokens; ++t) {
    const bool keeps = begin <= t && t < end;
    for (std::size_t i = 0; i < head_dim; ++i) {
      const std::size_t at = (t / 2 * head_dim + i) * 2 + t % 2;
      copy[at] = keeps ? from[at] : std::uint16_t{0};
    }
  }
}

} // namespace optiq::kernels::cpu
