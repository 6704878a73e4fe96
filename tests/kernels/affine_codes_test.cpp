#include "optiq/kernels/affine_codes.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/matrix_support.h"
#include "support/expect_error.h"

#include "optiq/artifacts/affine_format.h"

namespace optiq::kernels::test {
namespace {

using optiq::test::expect_error;

constexpr int kOut = 5;
constexpr int kIn = 256;

AffineCodes codes_of(mx::Dtype dtype, int bits, int group_size) {
  const mx::array w =
      array_of(normal_values(kOut * kIn, 3, 0.1f), {kOut, kIn}, dtype);
  return {quantize_affine(w, bits, group_size), bits, group_size};
}

std::vector<float> decoded(const AffineCodes& codes) {
  const AffineWeights& q = codes.weights();
  return values_of(mx::dequantize(
      q.weight, q.scales, q.biases, codes.group_size(), codes.bits()));
}

TEST(AffineCodes, AreThoseThatMlxUnpacks) {
  for (const int bits : artifacts::kAffineBits) {
    for (const int group : artifacts::kAffineGroupSizes) {
      const AffineCodes codes = codes_of(mx::float32, bits, group);
      EXPECT_EQ(codes.rows(), kOut);
      EXPECT_EQ(codes.columns(), kIn);
      const std::vector<float> expected = decoded(codes);
      const std::vector<float> scales = values_of(codes.weights().scales);
      const std::vector<float> biases = values_of(codes.weights().biases);
      for (int row = 0; row < kOut; ++row) {
        std::vector<std::uint8_t> unpacked(kIn);
        codes.unpack(row, unpacked);
        for (int i = 0; i < kIn; ++i) {
          const std::size_t g = (row * kIn + i) / group;
          // A product and a sum of values below 1.
          ASSERT_NEAR(
              scales[g] * static_cast<float>(unpacked[i]) + biases[g],
              expected[row * kIn + i],
              4 * kEps)
              << bits << ' ' << group << ' ' << row << ' ' << i;
        }
      }
    }
  }
}

TEST(AffineCodes, WithTheirOwnScalesAreWhatTheyWere) {
  for (const mx::Dtype dtype : {mx::bfloat16, mx::float16, mx::float32}) {
    const AffineCodes codes = codes_of(dtype, 3, 64);
    const AffineWeights same = codes.with_scales(codes.scales());
    EXPECT_EQ(same.scales.dtype(), dtype);
    EXPECT_EQ(values_of(same.weight), values_of(codes.weights().weight));
    EXPECT_EQ(values_of(same.scales), values_of(codes.weights().scales));
    const auto found = values_of(same.biases);
    const auto expected = values_of(codes.weights().biases);
    for (std::size_t g = 0; g < found.size(); ++g) {
      // The way to the middle of the codes and back: of values below 1.
      EXPECT_NEAR(found[g], expected[g], 4 * kEps);
    }
  }
}

// The scale is stored first: the middle keeps its value but for what the bias
// itself is rounded.
TEST(AffineCodes, BiasesMakeUpForWhatScalesRound) {
  const AffineCodes codes = codes_of(mx::bfloat16, 4, 64);
  AffineScales wanted = codes.scales();
  for (float& scale : wanted.scales) {
    scale *= 1.0037f; // about half a step of bfloat16
  }
  const AffineCodes moved(codes.with_scales(wanted), 4, 64);
  const AffineScales found = moved.scales();
  const std::vector<float> biases = values_of(moved.weights().biases);
  for (std::size_t g = 0; g < biases.size(); ++g) {
    EXPECT_NEAR(
        found.middles[g],
        wanted.middles[g],
        std::abs(biases[g]) * 0x1p-8 + 4 * kEps);
  }
}

// w is linear in both, so sum(G dw) is what the gradients say of a step.
TEST(AffineCodes, GradientsAreThoseOfScalesAndMiddles) {
  for (const int bits : {2, 3, 8}) {
    for (const int group : {32, 128}) {
      const AffineCodes codes = codes_of(mx::float32, bits, group);
      const std::vector<int> rows{4, 1, 2};
      const auto gradient = normal_values(rows.size() * kIn, 9);
      const AffineScales start = codes.scales();
      AffineScales sums{
          std::vector<float>(start.scales.size(), 1.f),
          std::vector<float>(start.scales.size(), -2.f)};
      codes.add_gradient(rows, gradient, sums);
      const std::vector<float> before = decoded(codes);
      for (const bool is_scale : {true, false}) {
        for (std::size_t g = 0; g < start.scales.size(); ++g) {
          AffineScales changed = start;
          (is_scale ? changed.scales : changed.middles)[g] += 0.5f;
          const std::vector<float> after =
              decoded({codes.with_scales(changed), bits, group});
          double expected = is_scale ? 1 : -2;
          double size = 0;
          for (std::size_t r = 0; r < rows.size(); ++r) {
            for (int i = 0; i < kIn; ++i) {
              const std::size_t at = rows[r] * kIn + i;
              const double change = double{after[at]} - before[at];
              expected += 2 * change * gradient[r * kIn + i];
              size += 2 * std::abs(change * gradient[r * kIn + i]);
            }
          }
          // Sums of `group` products, and w rounded beside half a step of it.
          EXPECT_NEAR(
              (is_scale ? sums.scales : sums.middles)[g],
              expected,
              2 * group * kEps * (size + 1) * (1 << bits))
              << bits << ' ' << group << ' ' << is_scale << ' ' << g;
        }
      }
    }
  }
}

TEST(AffineCodes, RefuseAnotherFormat) {
  const AffineCodes codes = codes_of(mx::float32, 4, 64);
  expect_error(ErrorKind::InvalidInput, {"AffineCodes"}, [&] {
    AffineCodes(codes.weights(), 7, 64);
  });
}

} // namespace
} // namespace optiq::kernels::test
