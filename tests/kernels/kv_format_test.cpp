#include <gtest/gtest.h>

#include "support/cpu_operations.h"
#include "support/expect_error.h"

namespace optiq::kernels {
namespace {

namespace mx = mlx::core;

KvFormat format_of(KvMethod method, float key_bits, float value_bits, int dim) {
  return {
      .n_kv_heads = 2,
      .head_dim = dim,
      .codec = {
          .method = method, .key_bits = key_bits, .value_bits = value_bits}};
}

/** Of one vector of keys and one of values of one head. */
double bytes_per_pair(const KvFormat& format) {
  return static_cast<double>(make_kv_format(format).block_bytes()) /
      kKvBlockTokens / format.n_kv_heads;
}

TEST(KvFormat, CountsTheBytesOfEveryMethod) {
  EXPECT_EQ(bytes_per_pair(format_of(KvMethod::Dense, 0, 0, 64)), 2 * 128);
  KvFormat wide = format_of(KvMethod::Dense, 0, 0, 64);
  wide.dtype = mx::float32;
  EXPECT_EQ(bytes_per_pair(wide), 2 * 256);
  // bits / 8 + 4 / group per value.
  EXPECT_EQ(bytes_per_pair(format_of(KvMethod::Affine, 4, 4, 128)), 2 * 72);
  EXPECT_EQ(bytes_per_pair(format_of(KvMethod::Affine, 8, 2, 64)), 68 + 20);
  KvFormat fine = format_of(KvMethod::Affine, 4, 4, 128);
  fine.codec.group_size = 32;
  EXPECT_EQ(bytes_per_pair(fine), 2 * 80);
  // bits / 8 per value and a norm.
  EXPECT_EQ(bytes_per_pair(format_of(KvMethod::Turbo, 4, 4, 128)), 2 * 66);
  EXPECT_EQ(
      bytes_per_pair(format_of(KvMethod::Turbo, 2.5f, 3.5f, 128)), 42 + 58);
  EXPECT_EQ(bytes_per_pair(format_of(KvMethod::Turbo, 1, 5, 64)), 10 + 42);
  // A side of 0 bits stays dense.
  EXPECT_EQ(bytes_per_pair(format_of(KvMethod::Turbo, 0, 4, 64)), 128 + 34);
  // Keys are padded to 32 channels, and say so.
  EXPECT_EQ(bytes_per_pair(format_of(KvMethod::Turbo, 4, 4, 80)), 50 + 42);
}

TEST(KvFormat, TakesEveryWidthAtEveryHeadDim) {
  for (const int dim : {64, 80, 96, 128, 256}) {
    for (const float bits : {2.f, 3.f, 4.f, 5.f, 6.f, 8.f}) {
      EXPECT_NO_THROW(
          make_kv_format(format_of(KvMethod::Affine, bits, bits, dim)));
    }
    for (const float bits : {1.f, 2.f, 2.5f, 3.f, 3.5f, 4.f, 5.f}) {
      const KvFormat format =
          make_kv_format(format_of(KvMethod::Turbo, bits, bits, dim));
      EXPECT_TRUE(format.layout);
      // Never above the nominal width, but for the padding of 80.
      const int padded = dim == 80 ? 96 : dim;
      EXPECT_LE(bytes_per_pair(format), (padded + dim) * bits / 8 + 4);
    }
  }
}

TEST(KvFormat, RefusesWhatNoMethodHasWithTheReason) {
  const auto refused =
      [](const KvFormat& format, ErrorKind kind, const std::string& words) {
        test::expect_error(kind, {words}, [&] { make_kv_format(format); });
      };
  const auto unsupported = ErrorKind::Unsupported;
  const auto invalid = ErrorKind::InvalidInput;
  refused(format_of(KvMethod::Affine, 7, 4, 64), unsupported, "at 7 bits");
  refused(format_of(KvMethod::Affine, 4, 2.5f, 64), unsupported, "values");
  refused(format_of(KvMethod::Affine, 4, 1, 64), unsupported, "at 1 bits");
  refused(format_of(KvMethod::Turbo, 6, 4, 64), unsupported, "Use affine");
  refused(format_of(KvMethod::Turbo, 4, 8, 64), unsupported, "at most 5");
  refused(format_of(KvMethod::Turbo, 1.5f, 4, 64), unsupported, "1.5 bits");
  refused(format_of(KvMethod::Turbo, 2.5f, 4, 32), unsupported, "whole width");
  refused(format_of(KvMethod::Turbo, 4, 4, 72), unsupported, "found 72");
  refused(format_of(KvMethod::Turbo, 4, 4, 512), unsupported, "found 512");
  refused(format_of(KvMethod::Turbo, 0, 0, 64), invalid, "0 bits on both");
  refused(format_of(KvMethod::Dense, 4, 4, 64), invalid, "dense format");
  KvFormat format = format_of(KvMethod::Affine, 4, 4, 64);
  format.codec.group_size = 48;
  refused(format, unsupported, "found 48");
  format = format_of(KvMethod::Dense, 0, 0, 64);
  format.dtype = mx::float16;
  refused(format, invalid, "bfloat16");
  format = format_of(KvMethod::Dense, 0, 0, 0);
  refused(format, invalid, "heads of 0");
  format = format_of(KvMethod::Dense, 0, 0, 16);
  format.window = -1;
  refused(format, invalid, "window of -1");
  format = format_of(KvMethod::Dense, 0, 0, 15);
  refused(format, invalid, "found 15 in bfloat16");
}

} // namespace
} // namespace optiq::kernels
