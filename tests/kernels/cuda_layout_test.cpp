#include <random>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "optiq/kernels/cuda/packed_layout.h"
#include "optiq/kernels/cuda/wide_layout.h"

/** The layout of quantized matrices on a card, on the host: its maps are the
 * ones that kernels use. */
namespace optiq::kernels::cuda {
namespace {

struct Codes {
  int out = 0;
  int in = 0;
  int bits = 0;
  std::vector<std::uint32_t> values; // [out, in]
  std::vector<std::uint32_t> rows; // MLX's stream of each row
  std::vector<std::uint32_t> packed;

  Codes(int n_out, int n_in, int width) : out(n_out), in(n_in), bits(width) {
    std::mt19937 random(7);
    const int row_words = in * bits / 32;
    rows.resize(static_cast<std::size_t>(out) * row_words);
    for (int row = 0; row < out; ++row) {
      for (int column = 0; column < in; ++column) {
        const std::uint32_t code = random() & ((1u << bits) - 1);
        values.push_back(code);
        for (int b = 0; b < bits; ++b) {
          const int at = column * bits + b;
          rows[row * row_words + at / 32] |= (code >> b & 1u) << at % 32;
        }
      }
    }
    const std::int64_t words =
        std::int64_t{tiles_of(out)} * spans_of(in) * kLanes * 2 * bits;
    for (std::int64_t at = 0; at < words; ++at) {
      packed.push_back(packed_word(rows.data(), row_words, out, in, bits, at));
    }
  }
  std::uint32_t at(int row, int column) const {
    return values[static_cast<std::size_t>(row) * in + column];
  }
};

TEST(CudaLayout, EveryCodeIsFound) {
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    // Rows and columns that leave a tile and a span unfilled, too.
    for (const auto& [out, in] : {std::pair{16, 128}, {21, 288}}) {
      const Codes codes(out, in, bits);
      for (int row = 0; row < out; ++row) {
        for (int column = 0; column < in; ++column) {
          ASSERT_EQ(
              code_at(codes.packed.data(), spans_of(in), bits, row, column),
              codes.at(row, column))
              << bits << " bits, " << row << ", " << column;
        }
      }
    }
  }
}

TEST(CudaLayout, ParamsAreThoseOfTheChunksGroup) {
  for (const int group : {32, 64, 128}) {
    const int shift = shift_of_group(group);
    EXPECT_EQ(kChunkColumns << shift, group);
    for (int chunk = 0; chunk < 4; ++chunk) {
      const int param = param_of_chunk(chunk, shift);
      EXPECT_LT(param, span_params(shift));
      EXPECT_EQ(chunk_of_param(param) >> shift, chunk >> shift)
          << group << ", " << chunk;
    }
  }
}

TEST(CudaLayout, TakesTheBytesOfTheCodes) {
  const Codes codes(32, 256, 5);
  EXPECT_EQ(codes.packed.size(), codes.rows.size());
}

TEST(CudaLayout, LanesShareATileOut) {
  std::set<std::pair<int, int>> seen;
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int row = 0; row < 2; ++row) {
      for (int index = 0; index < kLaneCodes; ++index) {
        const int tile_row = row_of(lane, row);
        const int column = column_of(lane, index);
        seen.emplace(tile_row, column);
        const CodePlace place = place_of(tile_row, column);
        EXPECT_EQ(place.lane, lane);
        EXPECT_EQ(place.row, row);
        EXPECT_EQ(place.index, index);
      }
    }
  }
  EXPECT_EQ(seen.size(), 16u * 128);
}

/** A pair of codes as the kernel takes it from a plane: one shift, one mask. */
std::uint32_t pair_in_plane(const std::uint32_t* words, int pair, int width) {
  const int per_word = 16 / width;
  const std::uint32_t mask = ((1u << width) - 1) * 0x00010001u;
  return words[pair / per_word] >> pair % per_word * width & mask;
}

/**
 * What mma.sync.m16n8k16 makes of the lanes' registers, summed as the kernel
 * does it: of A a lane holds rows g and g + 8 at columns (2t, 2t + 1) and (2t +
 * 8, 2t + 9), of B column g at the same rows. PTX ISA, "Matrix fragments for
 * mma.m16n8k16".
 */
double multiplied(const Codes& codes, const std::vector<double>& x, int row) {
  const int spans = spans_of(codes.in);
  double sum = 0;
  for (int span = 0; span < spans; ++span) {
    for (int step = 0; step < 8; ++step) { // of 16 columns
      for (int t = 0; t < 4; ++t) {
        const int lane = row % 8 * 4 + t;
        const std::uint32_t* words = codes.packed.data() +
            words_before(row / kTileRows,
                         span,
                         spans,
                         lane,
                         row % kTileRows / 8,
                         codes.bits);
        for (int half = 0; half < 2; ++half) { // registers a0 and a2, b0 and b1
          const int pair = 2 * step + half;
          const int low = low_bits(codes.bits);
          std::uint32_t both = pair_in_plane(words, pair, low);
          if (const int high = high_bits(codes.bits); high > 0) {
            both |= pair_in_plane(words + low, pair, high) << low;
          }
          for (int i = 0; i < 2; ++i) {
            // The B operand: eight values of x from the lane's column on.
            const int column = span * kSpanColumns +
                column_of(lane, 8 * (step / 2)) + 4 * (step % 2) + 2 * half + i;
            const double value = column < codes.in ? x[column] : 0;
            sum += (both >> 16 * i & 0xffff) * value;
          }
        }
      }
    }
  }
  return sum;
}

TEST(CudaLayout, OperandsMeetTheirColumns) {
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    const Codes codes(20, 160, bits);
    std::vector<double> x;
    for (int i = 0; i < codes.in; ++i) {
      x.push_back(i % 17 - 8); // whole numbers: sums are exact
    }
    for (int row = 0; row < codes.out; ++row) {
      double expected = 0;
      for (int i = 0; i < codes.in; ++i) {
        expected += codes.at(row, i) * x[i];
      }
      EXPECT_EQ(multiplied(codes, x, row), expected) << bits << ", " << row;
    }
  }
}

TEST(CudaLayout, WideRowsStandWhereLanesHaveTheirCodes) {
  // wgmma's k of 16: a lane t has 2 t, 2 t + 1 and those 8 behind.
  for (int lane = 0; lane < 4; ++lane) {
    for (int pair = 0; pair < kLaneCodes / 2; ++pair) {
      for (int i = 0; i < 2; ++i) {
        const int column = column_of(lane, 2 * pair + i);
        const int step = pair / 2;
        EXPECT_EQ(column / kWideColumns, step / 4);
        EXPECT_EQ(
            wide_column(column % kWideColumns),
            step % 4 * 16 + pair % 2 * 8 + 2 * lane + i);
      }
    }
  }
}

TEST(CudaLayout, WideTilesAreFilledOnce) {
  std::set<std::int64_t> places;
  for (int row = 0; row < kWideRows; ++row) {
    for (int column = 0; column < kSpanColumns; ++column) {
      places.insert(wide_place(row, column));
      // The 128-byte swizzle: 16 bytes by the row's last three bits.
      const std::int64_t in_row = wide_place(row, column) % kWideColumns;
      EXPECT_EQ(in_row / 8, wide_column(column % kWideColumns) / 8 ^ row % 8);
    }
  }
  EXPECT_EQ(places.size(), std::size_t{kWideRows} * kSpanColumns);
  EXPECT_EQ(*places.rbegin(), kWideRows * kSpanColumns - 1);
}

} // namespace
} // namespace optiq::kernels::cuda
