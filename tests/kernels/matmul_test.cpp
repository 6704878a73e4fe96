#include <cstring>

#include <gtest/gtest.h>

#include "kernels/matrix_support.h"
#include "support/expect_error.h"

/** Products that begin with a norm or end with another operation: the bits of
 * the operations one by one. */
namespace optiq::kernels::test {
namespace {

using optiq::test::expect_error;

constexpr float kNormEps = 1e-5f;

/** Matrices of one input width, in every form that a model may mix. */
struct Block {
  Matrix a;
  Matrix b; // same shape as a
  Norm norm;
  int in;
};

Block quantized_block(int out, int in, int bits_a, int group_a, int bits_b) {
  const int group_b = in % 128 == 0 ? 128 : 32;
  return {
      matrix_of(make_affine(out, in, bits_a, group_a)),
      matrix_of(make_affine(out, in, bits_b, group_b)),
      {array_of(normal_values(in, 11), {in}), kNormEps},
      in};
}

Matrix dense_matrix(int out, int in, unsigned seed) {
  return kernels::cpu_device().dense(array_of(
      normal_values(static_cast<std::size_t>(out) * in, seed),
      {out, in},
      mx::bfloat16));
}

void expect_equal_bits(const mx::array& found, const mx::array& expected) {
  ASSERT_EQ(found.shape(), expected.shape());
  EXPECT_EQ(
      std::memcmp(
          found.data<float>(), expected.data<float>(), expected.nbytes()),
      0);
}

void check_rows(const Block& block, int rows, Compute compute) {
  SCOPED_TRACE(testing::Message() << rows << " rows");
  const auto& [a, b, norm, in] = block;
  const int out = a.out_features();
  const auto floats = [&](int width, unsigned seed) {
    return array_of(
        normal_values(static_cast<std::size_t>(rows) * width, seed),
        {rows, width});
  };
  const mx::array x = floats(in, 1);
  const mx::array residual = floats(out, 2);
  const mx::array normed = rms_norm(x, norm.weight, norm.eps);
  const Matrix* const both[] = {&a, &b};

  const auto with_norm = matmul(x, both, compute, &norm);
  expect_equal_bits(with_norm[0], matmul(normed, a, compute));
  expect_equal_bits(with_norm[1], matmul(normed, b, compute));
  expect_equal_bits(
      matmul_add(x, a, residual, compute),
      kernels::add(residual, matmul(x, a, compute)));
  expect_equal_bits(
      matmul_glu(x, a, b, Activation::Silu, compute),
      swiglu(matmul(x, a, compute), matmul(x, b, compute)));
  expect_equal_bits(
      matmul_glu(x, a, b, Activation::Silu, compute, &norm),
      swiglu(with_norm[0], with_norm[1]));
  expect_equal_bits(
      matmul_glu(x, a, b, Activation::GeluTanh, compute, &norm),
      geglu(with_norm[0], with_norm[1]));
}

void check_block(const Block& block, std::initializer_list<int> rows) {
  for (const int n : rows) {
    check_rows(block, n, Compute::Int8);
    check_rows(block, n, Compute::Exact);
  }
}

TEST(Matmul, QuantizedFusionsKeepTheBits) {
  for (int out : {1, 16, 17, 200}) {
    SCOPED_TRACE(testing::Message() << out << " outputs");
    check_block(
        quantized_block(out, 192, 4, 64, 8), {1, 2, 3, 4, 5, 6, 7, 8, 9, 40});
  }
  // Inputs beyond what one rank prepares alone, groups of 128.
  check_block(quantized_block(33, 1280, 4, 64, 3), {1, 2, 9});
  // More columns than a chunk has: with few rows, and with many.
  check_block(quantized_block(2100, 64, 4, 32, 4), {1, 5});
  check_block(quantized_block(530, 64, 5, 64, 6), {400});
}

TEST(Matmul, DenseFusionsKeepTheBits) {
  for (int out : {1, 17, 530}) {
    SCOPED_TRACE(testing::Message() << out << " outputs");
    const Block dense{
        dense_matrix(out, 192, 1),
        dense_matrix(out, 192, 2),
        {array_of(normal_values(192, 11), {192}), kNormEps},
        192};
    check_block(dense, {1, 2, 3, 9, 40, 130});
    // A convert may keep one of two matrices.
    Block mixed = dense;
    mixed.b = matrix_of(make_affine(out, 192, 4, 64));
    check_block(mixed, {1, 9});
    std::swap(mixed.a, mixed.b);
    check_block(mixed, {1, 9});
  }
}

TEST(Matmul, FusionsKeepTheBitsWithAnyThreadsAndTarget) {
  const MachineGuard guard;
  const Block block = quantized_block(100, 192, 4, 64, 8);
  for (int threads : {1, 3, 5}) {
    ThreadPool::shared().resize(threads);
    check_block(block, {1, 6, 20});
  }
  for (const std::string& target : simd_targets()) {
    SCOPED_TRACE(target);
    force_simd_target(target);
    check_block(block, {1, 6, 20});
  }
}

TEST(Matmul, NoRowsGiveNoRows) {
  const Block block = quantized_block(32, 128, 4, 64, 8);
  const mx::array none = mx::zeros({0, 128});
  EXPECT_EQ(
      matmul_glu(none, block.a, block.b, Activation::Silu, Compute::Fast)
          .shape(),
      (mx::Shape{0, 32}));
  EXPECT_EQ(
      matmul_add(none, block.a, mx::zeros({0, 32}), Compute::Fast).shape(),
      (mx::Shape{0, 32}));
}

TEST(Matmul, RejectsWhatDoesNotFit) {
  const Block block = quantized_block(32, 128, 4, 64, 8);
  const Matrix other = matrix_of(make_affine(48, 128, 4, 64));
  const mx::array x = array_of(normal_values(2 * 128, 1), {2, 128});
  const Matrix* const one[] = {&block.a};
  const Norm narrow{mx::zeros({64}), kNormEps};
  const auto invalid = ErrorKind::InvalidInput;
  expect_error(invalid, {"[multiply] norm weight: found"}, [&] {
    matmul(x, one, Compute::Fast, &narrow);
  });
  expect_error(invalid, {"[multiply] residual: found"}, [&] {
    matmul_add(x, block.a, mx::zeros({2, 31}), Compute::Fast);
  });
  expect_error(invalid, {"[multiply] up: found 48 outputs"}, [&] {
    matmul_glu(x, block.a, other, Activation::Silu, Compute::Fast);
  });
}

TEST(Multiply, BiasesComeBehindTheResidual) {
  const Block block = quantized_block(32, 128, 4, 64, 8);
  const mx::array x = array_of(normal_values(3 * 128, 1), {3, 128});
  const mx::array residual = array_of(normal_values(3 * 32, 2), {3, 32});
  const mx::array bias = array_of(normal_values(32, 3), {32});
  const auto y = cpu_device().multiply(
      x,
      {.projections = {{.weight = &block.a, .bias = &bias, .updates = {}}},
       .residual = &residual,
       .compute = Compute::Exact});
  expect_equal_bits(
      y.front(),
      add_bias(matmul_add(x, block.a, residual, Compute::Exact), bias));
}

/** scale (x A^T) B^T in double, for one row. */
std::vector<double> update_of(const float* x, const LowRankUpdate& update) {
  const int rank = update.a.shape(0);
  const int in = update.a.shape(1);
  const int out = update.b.shape(1);
  const float* a = update.a.data<float>();
  const float* b = update.b.data<float>();
  std::vector<double> y(out);
  for (int r = 0; r < rank; ++r) {
    double inner = 0;
    for (int k = 0; k < in; ++k) {
      inner += double{x[k]} * a[r * in + k];
    }
    for (int n = 0; n < out; ++n) {
      y[n] += update.scale * inner * b[r * out + n];
    }
  }
  return y;
}

LowRankUpdate
make_update(int first_row, int rows, int rank, int in, int out, unsigned seed) {
  return {
      .first_row = first_row,
      .rows = rows,
      .a = array_of(
          normal_values(static_cast<std::size_t>(rank) * in, seed), {rank, in}),
      .b = array_of(
          normal_values(static_cast<std::size_t>(out) * rank, seed + 1),
          {rank, out}),
      .scale = 0.5f};
}

// Two adapters of other ranks in one batch, a row without any between them:
// each row gets its own, the row between them not a bit.
TEST(Multiply, AddsLowRankUpdatesToTheirRowsAlone) {
  const Block block = quantized_block(48, 128, 4, 64, 8);
  const mx::array x = array_of(normal_values(5 * 128, 1), {5, 128});
  const std::vector<LowRankUpdate> updates{
      make_update(0, 2, 8, 128, 48, 21), make_update(3, 2, 4, 128, 48, 31)};
  const mx::array normed = rms_norm(x, block.norm.weight, kNormEps);
  const mx::array plain = matmul(normed, block.a, Compute::Exact);
  const auto found = cpu_device().multiply(
      x,
      {.projections = {{.weight = &block.a, .updates = updates}},
       .norm = &block.norm,
       .compute = Compute::Exact});
  const float* y = found.front().data<float>();
  const float* base = plain.data<float>();
  for (int row = 0; row < 5; ++row) {
    std::vector<double> change(48);
    for (const LowRankUpdate& update : updates) {
      if (row >= update.first_row && row < update.first_row + update.rows) {
        change = update_of(normed.data<float>() + row * 128, update);
      }
    }
    for (int n = 0; n < 48; ++n) {
      if (row == 2) {
        ASSERT_EQ(y[row * 48 + n], base[row * 48 + n]);
      }
      // Chains of 128 and of 8 products of normal values, in float32.
      ASSERT_NEAR(y[row * 48 + n], base[row * 48 + n] + change[n], 2e-3);
    }
  }
}

TEST(Multiply, UpdatesComeBeforeTheActivation) {
  const Block block = quantized_block(48, 128, 4, 64, 8);
  const mx::array x = array_of(normal_values(2 * 128, 1), {2, 128});
  const std::vector<LowRankUpdate> updates{make_update(0, 2, 4, 128, 48, 41)};
  const auto alone = [&](const Matrix& weight, bool is_updated) {
    Product product{
        .projections = {{.weight = &weight, .updates = {}}},
        .compute = Compute::Fast};
    if (is_updated) {
      product.projections.front().updates = updates;
    }
    return cpu_device().multiply(x, product).front();
  };
  const auto found = cpu_device().multiply(
      x,
      {.projections =
           {{.weight = &block.a, .updates = updates},
            {.weight = &block.b, .updates = {}}},
       .activation = Activation::Silu,
       .compute = Compute::Fast});
  expect_equal_bits(
      found.front(), swiglu(alone(block.a, true), alone(block.b, false)));
}

TEST(Multiply, RefusesUpdatesThatDoNotFit) {
  const Block block = quantized_block(48, 128, 4, 64, 8);
  const mx::array x = array_of(normal_values(2 * 128, 1), {2, 128});
  const auto refused = [&](const LowRankUpdate& update, const char* word) {
    const std::vector<LowRankUpdate> updates{update};
    expect_error(ErrorKind::InvalidInput, {word}, [&] {
      cpu_device().multiply(
          x, {.projections = {{.weight = &block.a, .updates = updates}}});
    });
  };
  refused(make_update(1, 2, 4, 128, 48, 1), "rows 1 + 2");
  refused(make_update(0, 2, 4, 128, 40, 1), "B [4, 40]");
  refused(make_update(0, 2, 4, 64, 48, 1), "A [4, 64]");
}

} // namespace
} // namespace optiq::kernels::test
