#include <bit>
#include <cmath>
#include <map>

#include <gtest/gtest.h>
#include <mlx/types/half_types.h>

#include "optiq/kernels/cuda/arguments.h"
#include "optiq/kernels/cuda/decode_layout.h"
#include "optiq/kernels/cuda/kv_layout.h"

/** What attention_decode.cu has where. */
namespace optiq::kernels::cuda {
namespace {

constexpr int kAllBits[] = {2, 3, 4, 5, 6, 8};

/** Row k of a product's B operand that a number of a register is: of registers
 * b0 and b1 of lane 4 c + t (instructions.cuh). */
int row_of_operand(int t, int reg, int half) {
  return 8 * reg + 2 * t + half;
}

TEST(CudaDecodeLayout, OperandsOfQueriesMeetTheirChannels) {
  for (const bool is_dense : {false, true}) {
    for (int query = 0; query < 4; ++query) {
      std::map<int, int> channel_at; // place -> channel
      for (int channel = 0; channel < 32; ++channel) {
        channel_at[operand_place(is_dense, query, channel)] = channel;
      }
      ASSERT_EQ(channel_at.size(), 32U);
      for (int t = 0; t < 4; ++t) {
        for (int number = 0; number < 8; ++number) {
          const int product = number / 4;
          const int reg = number / 2;
          const int half = number % 2;
          // Of digit 0 in column 2 * query.
          const int place = (8 * query + t) * 8 + number;
          // Keys: codes n and n + 4 of the lane's eight in register n; of
          // bfloat16 row k of the product is channel k.
          const int expected = is_dense
              ? 16 * product + row_of_operand(t, reg % 2, half)
              : 8 * t + reg + 4 * half;
          EXPECT_EQ(channel_at.at(place), expected);
        }
      }
    }
  }
}

TEST(CudaDecodeLayout, CodesFitIntoTheFractionOfAHalf) {
  for (const int bits : kAllBits) {
    for (int n = 0; n < 4; ++n) {
      EXPECT_LE(code_place(bits, n) + bits, 10) << bits;
    }
  }
}

TEST(CudaDecodeLayout, RowsOfEightTokensLieInDifferentBanks) {
  for (const int head_dim : {64, 128, 256}) {
    for (const int bits : kAllBits) {
      const int bytes = head_dim * bits / 8;
      if (bytes % 16 == 0) {
        EXPECT_EQ(row_pitch(bytes) / 16 % 2, 1) << bytes;
      }
      EXPECT_GE(row_pitch(bytes), bytes);
      EXPECT_EQ(row_pitch(bytes) % 8, 0);
    }
  }
}

KvFormat format_of(KvMethod method, double bits, int head_dim) {
  KvFormat format{.n_kv_heads = 2, .head_dim = head_dim};
  format.codec.method = method;
  format.codec.key_bits = bits;
  format.codec.value_bits = bits;
  return format;
}

TEST(CudaDecodeLayout, BlocksFitIntoSharedMemory) {
  constexpr int kLeast = 99 << 10; // of compute capabilities 8.9 and 12.0
  constexpr int kMore = 163 << 10; // of 8.0, which large heads may take
  for (const int head_dim : {64, 128, 256}) {
    for (const int bits : kAllBits) {
      const KvShape shape =
          kv_shape(format_of(KvMethod::Affine, bits, head_dim));
      const DecodeMemory memory = decode_memory(shape, 1);
      EXPECT_EQ(memory.values % 16, 0);
      EXPECT_EQ(memory.sums % 16, 0);
      EXPECT_EQ(memory.bytes % 16, 0);
      EXPECT_LE(decode_bytes(shape, 2), head_dim < 256 ? kLeast : kMore)
          << head_dim << ", " << bits;
    }
    const bool is_dense = true;
    const KvShape dense = kv_shape(format_of(KvMethod::Dense, 0, head_dim));
    EXPECT_LE(
        decode_bytes(dense, decode_queries(head_dim, is_dense) / 4), kLeast);
  }
}

TEST(CudaDecodeLayout, CentroidsAreTakenApartIntoBytes) {
  for (const int bits : {2, 3, 4}) {
    const KvSide side = kv_shape(format_of(KvMethod::Turbo, bits, 128)).key;
    const KvPart& part = side.parts[0];
    const int n = 1 << bits;
    const int first = n > 8 ? n - 8 : 0;
    for (int i = 0; i < std::min(n, 8); ++i) {
      const std::uint32_t low = part.half_bytes[i / 4] >> (i % 4 * 8) & 0xff;
      const std::uint32_t high =
          part.half_bytes[2 + i / 4] >> (i % 4 * 8) & 0xff;
      const float centroid = static_cast<float>(std::bit_cast<mx::float16_t>(
          static_cast<std::uint16_t>(low | high << 8)));
      const float expected = part.centroids[first + i];
      EXPECT_LE(std::abs(centroid - expected), 0x1p-11f * std::abs(expected));
      // Of 4 bits the others are their mirror image.
      EXPECT_EQ(part.centroids[n - 1 - first - i], -expected);
    }
  }
}

} // namespace
} // namespace optiq::kernels::cuda
