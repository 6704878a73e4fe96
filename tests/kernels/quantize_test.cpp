#include <cstring>

#include <gtest/gtest.h>

#include "kernels/matrix_support.h"

#include "optiq/base/error.h"

namespace optiq::kernels::test {
namespace {

bool same_bytes(const mx::array& a, const mx::array& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
      std::memcmp(a.data<char>(), b.data<char>(), a.nbytes()) == 0;
}

/** Normal values, with groups that are zero, constant, one-sided and tiny. */
std::vector<float> awkward_values(int rows, int cols) {
  auto w = normal_values(static_cast<std::size_t>(rows) * cols, 12, 0.05f);
  for (int k = 0; k < cols; ++k) {
    w[0 * cols + k] = 0.f;
    w[1 * cols + k] = 0.5f;
    w[2 * cols + k] = -0.5f;
    w[3 * cols + k] = std::fabs(w[3 * cols + k]);
    w[4 * cols + k] = -std::fabs(w[4 * cols + k]);
    w[5 * cols + k] *= 1e-7f;
    w[6 * cols + k] = k % 2 == 0 ? 1.f : -1.f;
    w[7 * cols + k] = k == 5 ? -3e4f : 0.f;
    w[8 * cols + k] = 1.f + static_cast<float>(k % 3) * 0x1p-7f;
  }
  return w;
}

void expect_equal_to_mlx(int bits, int group, mx::Dtype dtype) {
  SCOPED_TRACE(testing::Message() << bits << " bits, group " << group);
  const mx::array w = array_of(awkward_values(40, 256), {40, 256}, dtype);
  auto reference = mx::quantize(w, group, bits);
  mx::eval(reference);
  const AffineWeights ours = quantize_affine(w, bits, group);
  EXPECT_TRUE(same_bytes(ours.weight, reference[0]));
  EXPECT_TRUE(same_bytes(ours.scales, reference[1]));
  EXPECT_TRUE(same_bytes(ours.biases, reference[2]));
}

TEST(Quantize, EqualsMlxBitForBitOnEveryTarget) {
  const MachineGuard guard;
  for (const std::string& target : simd_targets()) {
    SCOPED_TRACE(target);
    force_simd_target(target);
    for (int bits : {2, 3, 4, 5, 6, 8}) {
      for (int group : {32, 64, 128}) {
        for (auto dtype : {mx::bfloat16, mx::float16, mx::float32}) {
          expect_equal_to_mlx(bits, group, dtype);
        }
      }
    }
  }
}

TEST(Quantize, GoldenVectors) {
  std::vector<float> w(32);
  for (int i = 0; i < 32; ++i) {
    w[i] = static_cast<float>(37 * i % 64 - 31) / 32.f;
  }
  w[5] = -1.7f;
  struct Golden {
    int bits;
    float scale;
    std::vector<std::uint32_t> words;
  };
  const Golden table[] = {
      {2, 0.850000024f, {0x9bb662d9, 0xed9bb6ed}},
      {3, 0.425000012f, {0x5d503aa2, 0x4d33aa67, 0xcebaa675}},
      {4, 0.188888893f, {0x4907c6a4, 0xb59e8c6a, 0x7b5ae8d7, 0xe8c6a49d}},
      {5,
       0.0850000009f,
       {0x010d32c9, 0xf8edb755, 0xcb8ec2eb, 0x7d86996f, 0xf476dba6}},
      {6,
       0.0425000004f,
       {0x20d19b11,
        0x66ef4e70,
        0xc56a7d8b,
        0x2cfe4e1d,
        0x39fa7f36,
        0xf61d5ab9}},
      {8,
       0.0105590066f,
       {0xd063b345,
        0x4e9e0080,
        0x89d96cbc,
        0xc557a7f7,
        0xff92e275,
        0x7dcd60b0,
        0xb94b9beb,
        0xf486d669}}};
  for (const Golden& golden : table) {
    SCOPED_TRACE(golden.bits);
    const AffineWeights q =
        quantize_affine(array_of(w, {1, 32}), golden.bits, 32);
    EXPECT_EQ(q.scales.item<float>(), golden.scale);
    EXPECT_EQ(q.biases.item<float>(), -1.70000005f);
    const auto* words = q.weight.data<std::uint32_t>();
    EXPECT_EQ(
        std::vector<std::uint32_t>(words, words + q.weight.size()),
        golden.words);
  }
}

TEST(Quantize, ConstantGroups) {
  for (float value : {0.f, 0.5f, -0.5f}) {
    const mx::array w = array_of(std::vector<float>(32, value), {1, 32});
    const AffineWeights q = quantize_affine(w, 4, 32);
    EXPECT_EQ(q.scales.item<float>(), -1e-7f);
    EXPECT_EQ(q.biases.item<float>(), value);
    for (std::size_t i = 0; i < q.weight.size(); ++i) {
      EXPECT_EQ(q.weight.data<std::uint32_t>()[i], 0u);
    }
  }
}

TEST(Quantize, AStridedSourceIsReadInItsOrder) {
  const mx::array w = array_of(normal_values(64 * 64, 3), {64, 64});
  mx::array copy = mx::contiguous(mx::transpose(w));
  mx::eval(copy);
  mx::array strided = mx::transpose(w);
  mx::eval(strided);
  const AffineWeights a = quantize_affine(strided, 4, 64);
  const AffineWeights b = quantize_affine(copy, 4, 64);
  EXPECT_TRUE(same_bytes(a.weight, b.weight));
  EXPECT_TRUE(same_bytes(a.scales, b.scales));
}

TEST(Quantize, RejectsWhatDoesNotFit) {
  const auto kind = [](const mx::array& w, int bits, int group) {
    try {
      quantize_affine(w, bits, group);
    } catch (const Error& error) {
      return error.kind();
    }
    return ErrorKind::Internal;
  };
  const mx::array w = mx::zeros({2, 64});
  EXPECT_EQ(kind(w, 1, 64), ErrorKind::InvalidInput);
  EXPECT_EQ(kind(w, 7, 64), ErrorKind::InvalidInput);
  EXPECT_EQ(kind(w, 4, 16), ErrorKind::InvalidInput);
  EXPECT_EQ(kind(w, 4, 128), ErrorKind::InvalidInput);
  EXPECT_EQ(kind(mx::zeros({64}), 4, 64), ErrorKind::InvalidInput);
  EXPECT_EQ(
      kind(mx::zeros({2, 64}, mx::int32), 4, 64), ErrorKind::InvalidInput);
}

} // namespace
} // namespace optiq::kernels::test
