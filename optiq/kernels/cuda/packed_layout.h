#pragma once

#include <cstdint>

/**
 * How a quantized matrix [out, in] lies on a card: in the order in which the
 * lanes of a warp feed mma.sync.m16n8k16, whose A operand is 16 rows of it.
 *
 *   codes   u32 [tiles of 16 rows][spans of 128 columns][32 lanes][2 rows]
 *           [bits]
 *   params  u32 [tiles][spans][16 rows][2 or 4], scale and bias as two halves
 *
 * Lane 4 g + t has rows g and g + 8 of its tile, and of each of the span's four
 * chunks of 32 columns the eight from 8 t on: 32 codes a row, in `bits` words.
 * A width is one bit plane or two (3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2), low bits
 * first; in a plane, codes 2 i and 2 i + 1 stand at the same place
 * of the two halves of a word, so that a shift and a mask give both. Rows and
 * columns behind the last are zeros with a scale and bias of zero.
 *
 * Params are those of each half of a span, twice the same for groups of 128; of
 * groups of 32 the second of each half, then the first.
 *
 * Functions are shared by host and card.
 */
namespace optiq::kernels::cuda {

inline constexpr int kTileRows = 16;
inline constexpr int kSpanColumns = 128;
inline constexpr int kChunkColumns = 32; // a sum of x each
inline constexpr int kLanes = 32;
inline constexpr int kLaneCodes = 32; // of one row in one span

constexpr int tiles_of(int out) {
  return (out + kTileRows - 1) / kTileRows;
}
constexpr int spans_of(int in) {
  return (in + kSpanColumns - 1) / kSpanColumns;
}
constexpr int padded_columns(int in) {
  return spans_of(in) * kSpanColumns;
}

/** Which of the groups of `32 << shift` columns: 0, 1 or 2. */
constexpr int shift_of_group(int group) {
  return group / kChunkColumns / 2;
}
/** Params of a row in a span, and where that of a chunk of columns stands. */
constexpr int span_params(int shift) {
  return shift == 0 ? 4 : 2;
}
constexpr int param_of_chunk(int chunk, int shift) {
  return shift == 0 && chunk % 2 == 0 ? 2 + chunk / 2 : chunk / 2;
}
/** A chunk that has the param. */
constexpr int chunk_of_param(int param) {
  return param < 2 ? 2 * param + 1 : 2 * (param - 2);
}
/** Words before a row's params of a span. */
constexpr std::int64_t
params_before(int tile, int span, int spans, int row, int shift) {
  const std::int64_t rows =
      (static_cast<std::int64_t>(tile) * spans + span) * kTileRows + row;
  return rows * span_params(shift);
}

/** Bits of the first plane of a width, and of the second, which may be 0. */
constexpr int low_bits(int bits) {
  return bits == 3 ? 2 : bits == 5 || bits == 6 ? 4 : bits;
}
constexpr int high_bits(int bits) {
  return bits - low_bits(bits);
}

/** Where the bits of one plane of a code stand among a lane's words of a row.
 */
struct PlanePlace {
  int word = 0;
  int shift = 0;
};

/** Of code `index` in a plane of `width` bits whose words begin at `first`. */
constexpr PlanePlace place_in_plane(int index, int width, int first) {
  const int per_word = 16 / width;
  const int pair = index / 2;
  return {first + pair / per_word, pair % per_word * width + index % 2 * 16};
}

/** Row within its tile and column within its span of a lane's code. */
constexpr int row_of(int lane, int row) {
  return lane / 4 + 8 * row;
}
constexpr int column_of(int lane, int index) {
  return index / 8 * kChunkColumns + lane % 4 * 8 + index % 8;
}

/** A lane, which of its two rows, and which of its codes. */
struct CodePlace {
  int lane = 0;
  int row = 0;
  int index = 0;
};

/** The place of a row of a tile and a column of a span. */
constexpr CodePlace place_of(int row, int column) {
  return {
      row % 8 * 4 + column % kChunkColumns / 8,
      row / 8,
      column / kChunkColumns * 8 + column % 8};
}

/** Words before those of a lane's row. */
constexpr std::int64_t
words_before(int tile, int span, int spans, int lane, int row, int bits) {
  const std::int64_t lanes =
      (static_cast<std::int64_t>(tile) * spans + span) * kLanes + lane;
  return (lanes * 2 + row) * bits;
}

/** The code of (row, column) of the matrix. */
constexpr std::uint32_t
code_at(const std::uint32_t* words, int spans, int bits, int row, int column) {
  const CodePlace place = place_of(row % kTileRows, column % kSpanColumns);
  const std::uint32_t* of_row = words +
      words_before(row / kTileRows,
                   column / kSpanColumns,
                   spans,
                   place.lane,
                   place.row,
                   bits);
  const int low = low_bits(bits);
  const PlanePlace first = place_in_plane(place.index, low, 0);
  std::uint32_t code = of_row[first.word] >> first.shift & ((1u << low) - 1);
  if (const int high = high_bits(bits); high > 0) {
    const PlanePlace second = place_in_plane(place.index, high, low);
    code |= (of_row[second.word] >> second.shift & ((1u << high) - 1)) << low;
  }
  return code;
}

/** Code `index` of a little-endian stream of codes: a row of MLX's format. */
constexpr std::uint32_t
stream_code(const std::uint32_t* words, std::int64_t index, int bits) {
  const std::int64_t bit = index * bits;
  const auto shift = static_cast<int>(bit % 32);
  std::uint32_t code = words[bit / 32] >> shift;
  if (shift + bits > 32) {
    code |= words[bit / 32 + 1] << (32 - shift);
  }
  return code & ((1u << bits) - 1);
}

/** Word `word` of a lane's row: of a matrix whose rows of MLX's format have
 * `row_words` words and `in` codes. Rows at and behind `out` are zeros. */
constexpr std::uint32_t packed_word(
    const std::uint32_t* rows,
    int row_words,
    int out,
    int in,
    int bits,
    std::int64_t at) {
  const int spans = spans_of(in);
  const auto word = static_cast<int>(at % bits);
  const auto row = static_cast<int>(at / bits % 2);
  const auto lane = static_cast<int>(at / bits / 2 % kLanes);
  const std::int64_t block = at / bits / 2 / kLanes;
  const auto tile_row = static_cast<int>(block / spans) * kTileRows;
  const int from = tile_row + row_of(lane, row);
  if (from >= out) {
    return 0;
  }
  const std::uint32_t* codes =
      rows + static_cast<std::int64_t>(from) * row_words;
  const bool is_low = word < low_bits(bits);
  const int width = is_low ? low_bits(bits) : high_bits(bits);
  const int first = is_low ? 0 : low_bits(bits);
  const int per_word = 16 / width;
  std::uint32_t packed = 0;
  for (int i = 0; i < 2 * per_word; ++i) {
    const int index = (word - first) * 2 * per_word + i;
    const int column =
        static_cast<int>(block % spans) * kSpanColumns + column_of(lane, index);
    if (column < in) {
      const std::uint32_t code =
          stream_code(codes, column, bits) >> (is_low ? 0 : low_bits(bits));
      packed |= (code & ((1u << width) - 1))
          << place_in_plane(index, width, first).shift;
    }
  }
  return packed;
}

} // namespace optiq::kernels::cuda
