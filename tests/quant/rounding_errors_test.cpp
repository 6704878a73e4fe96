#include "optiq/quant/rounding_errors.h"

#include <gtest/gtest.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "support/kernel_checks.h"

#include "optiq/artifacts/affine_format.h"
#include "optiq/kernels/mlx/mlx_device.h"
#include "optiq/kernels/quantize.h"

namespace optiq::quant {
namespace {

namespace mx = mlx::core;

constexpr int kOut = 5;
constexpr int kIn = 256;

TEST(RoundingErrors, AreTheMeanSquaresOfEveryGroup) {
  const mx::array w = testing::normal_array({kOut, kIn}, 3, 1.f);
  for (kernels::Device* device :
       {&kernels::cpu_device(), &kernels::mlx_device()}) {
    for (const int bits : artifacts::kAffineBits) {
      for (const int group_size : artifacts::kAffineGroupSizes) {
        const auto q = kernels::quantize_affine(w, bits, group_size);
        const RoundingErrors found = rounding_errors(
            *device,
            device->dense(w),
            device->quantized(q.weight, q.scales, q.biases, bits, group_size));
        EXPECT_EQ(found.bits, bits);
        EXPECT_EQ(found.group_size, group_size);
        mx::array values =
            mx::dequantize(q.weight, q.scales, q.biases, group_size, bits);
        mx::eval(values);
        const int groups = kIn / group_size;
        ASSERT_EQ(found.mean_squares.size(), std::size_t{kOut} * groups);
        for (int g = 0; g < kOut * groups; ++g) {
          double sum = 0;
          for (int i = g * group_size; i < (g + 1) * group_size; ++i) {
            const double error =
                double{values.data<float>()[i]} - w.data<float>()[i];
            sum += error * error;
          }
          // bfloat16 has 8 bits; at 8 bits of codes the float32 values leave
          // 2^-24 / 2^-9 of an error.
          EXPECT_NEAR(
              static_cast<float>(found.mean_squares[g]),
              sum / group_size,
              0x1p-8 * sum / group_size)
              << bits << " " << group_size;
        }
      }
    }
  }
}

} // namespace
} // namespace optiq::quant
