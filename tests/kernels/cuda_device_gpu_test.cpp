#include <algorithm>
#include <cmath>
#include <numeric>

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "kernels/device_checks.h"
#include "support/expect_error.h"

#include "optiq/kernels/cuda/cuda_device.h"
#include "optiq/kernels/devices.h"
#include "optiq/kernels/quantize.h"

/** What is the card's own: bits of rows, large shapes, what it refuses. */
namespace optiq::kernels {
namespace {

using test::expect_error;
using testing::rows_of;

class CudaDevice : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string why = why_no_cuda();
    if (!why.empty()) {
      GTEST_SKIP() << why;
    }
  }
  Device& device() {
    return cuda_device(0);
  }
  Matrix quantized(int out, int in, int bits, int group) {
    mx::array weight =
        mx::astype(normal_array({out, in}, 9, 0.1f), mx::bfloat16);
    mx::eval(weight);
    const AffineWeights w = quantize_affine(weight, bits, group);
    return device().quantized(w.weight, w.scales, w.biases, bits, group);
  }
  Matrix dense_matrix(int out, int in, float factor = 1.f) {
    return device().dense(mx::contiguous(
        mx::astype(normal_array({out, in}, 4, 0.1f * factor), mx::bfloat16)));
  }
  /** Of 16 bits dense. */
  Matrix matrix(int out, int in, int bits, int group = 64) {
    return bits == 16 ? dense_matrix(out, in) : quantized(out, in, bits, group);
  }
  std::vector<float>
  product(const Matrix& w, const mx::array& x, Compute compute) {
    return on_host(
        device(),
        device().multiply(
            device().upload(x),
            {.projections = {{&w}}, .compute = compute})[0]);
  }
};

/** Rows [begin, begin + n) of values [*, width]. */
std::vector<float>
part(const std::vector<float>& values, int begin, int n, int width) {
  return {
      values.begin() + static_cast<std::ptrdiff_t>(begin) * width,
      values.begin() + static_cast<std::ptrdiff_t>(begin + n) * width};
}

TEST_F(CudaDevice, ARowOfAProductDependsOnNoOther) {
  constexpr int kIn = 1600;
  constexpr int kOut = 136;
  const mx::array x = normal_array({100, kIn}, 3);
  for (const int bits : {2, 3, 4, 5, 6, 8, 16}) {
    const Matrix w = matrix(kOut, kIn, bits);
    for (const Compute compute : {Compute::Fast, Compute::Exact}) {
      const std::vector<float> all = product(w, rows_of(x, 5, 64), compute);
      for (const int n : {1, 2, 7, 8, 9, 16, 17, 32, 33}) {
        EXPECT_EQ(product(w, rows_of(x, 5, n), compute), part(all, 0, n, kOut))
            << bits << " bits, " << n << " rows";
      }
    }
  }
}

TEST_F(CudaDevice, ARowOfABatchHasTheBitsOfOneAlone) {
  // So many outputs that tasks of both sizes are the best ones.
  constexpr int kOut = 5000;
  // Fewer spans of columns than warps, and some that have more than others.
  for (const int in : {640, 1664, 4096}) {
    const mx::array x = normal_array({64, in}, 3);
    const mx::array residual = normal_array({64, kOut}, 5);
    const mx::array bias = device().upload(normal_array({kOut}, 4));
    for (const auto& [bits, group] : std::vector<std::pair<int, int>>{
             {4, 64}, {4, 128}, {5, 64}, {8, 64}}) {
      const Matrix w = quantized(kOut, in, bits, group);
      const auto rows = [&](int begin, int n) {
        const mx::array added = device().upload(rows_of(residual, begin, n));
        return on_host(
            device(),
            device().multiply(
                device().upload(rows_of(x, begin, n)),
                {.projections = {{&w, &bias}}, .residual = &added})[0]);
      };
      for (const int n : {17, 32, 33, 64}) {
        const std::vector<float> all = rows(0, n);
        for (const int row : {0, 15, n - 1}) {
          EXPECT_EQ(rows(row, 1), part(all, row, 1, kOut))
              << bits << " bits, row " << row << " of " << n << ", " << in;
        }
      }
    }
  }
}

TEST_F(CudaDevice, MoreThan64RowsAreAsGoodAndDependOnNoOther) {
  constexpr int kOut = 136;
  for (const int group : {32, 64, 128}) {
    const int in = group == 128 ? 1664 : 1600; // 1600 leaves a span unfilled
    const mx::array x = normal_array({300, in}, 3);
    for (const int bits : {2, 3, 4, 5, 6, 8, 16}) {
      const Matrix w = matrix(kOut, in, bits, group);
      for (const Compute compute : {Compute::Fast, Compute::Exact}) {
        const std::vector<float> all = product(w, x, compute);
        for (const int n : {65, 128, 129, 250}) {
          EXPECT_EQ(
              product(w, rows_of(x, 7, n), compute), part(all, 7, n, kOut))
              << bits << " bits, " << n << " rows";
        }
        // Sums in another order; in fast of weights with 11 bits, an error of
        // 2^-12 at most each, or of rows with as many, and in few rows of codes
        // of 1024 sum(x), too; in exact of dense weights of rows with 22 bits.
        const double rounding = compute == Compute::Fast ? 0x1p-12
            : bits == 16                                 ? 0x1p-22
                                                         : 0.0;
        const bool adds_1024 = compute == Compute::Fast && bits < 16;
        const double bound =
            rounding + (adds_1024 ? 1024 : 1) * chain_error(in);
        const std::vector<float> few = product(w, rows_of(x, 7, 64), compute);
        EXPECT_LE(distance(part(all, 7, 64, kOut), few), bound)
            << bits << " bits, groups of " << group;
      }
    }
  }
}

TEST_F(CudaDevice, TasksOfManyRowsMayBeOfAnySize) {
  // So many rows that tasks of 256 outputs leave fewer multiprocessors of 132
  // without work, and so few that those of 128 do.
  constexpr int kIn = 640;
  constexpr int kOut = 5632;
  const mx::array x = normal_array({2048, kIn}, 3);
  for (const int bits : {4, 16}) {
    const Matrix w = matrix(kOut, kIn, bits);
    for (const Compute compute : {Compute::Fast, Compute::Exact}) {
      const std::vector<float> all = product(w, x, compute);
      for (const int first : {0, 1900}) {
        EXPECT_EQ(
            product(w, rows_of(x, first, 100), compute),
            part(all, first, 100, kOut))
            << bits << " bits";
      }
    }
  }
}

TEST_F(CudaDevice, DenseWeightsOfAnySizeAreAsGood) {
  const mx::array x = normal_array({80, 512}, 3);
  for (const Compute compute : {Compute::Fast, Compute::Exact}) {
    const std::vector<float> expected =
        product(dense_matrix(64, 512), x, compute);
    for (const float factor : {0x1p-60f, 0x1p60f}) {
      std::vector<float> scaled =
          product(dense_matrix(64, 512, factor), x, compute);
      for (float& y : scaled) {
        y /= factor;
      }
      EXPECT_EQ(scaled, expected) << factor;
    }
  }
}

TEST_F(CudaDevice, ARowOfAGatedProductDependsOnNoOther) {
  constexpr int kIn = 640;
  constexpr int kOut = 72;
  const mx::array x = normal_array({40, kIn}, 3);
  const mx::array bias = device().upload(normal_array({kOut}, 4));
  const Norm norm{
      .weight = device().upload(normal_array({kIn}, 5)), .eps = 1e-5f};
  for (const int bits : {4, 8}) {
    const Matrix gate = quantized(kOut, kIn, bits, 64);
    const Matrix up = quantized(kOut, kIn, bits, 32);
    const auto gated = [&](const mx::array& rows) {
      return on_host(
          device(),
          device().multiply(
              device().upload(rows),
              {.projections = {{&gate, &bias}, {&up}},
               .norm = &norm,
               .activation = Activation::Silu})[0]);
    };
    const std::vector<float> all = gated(x); // activated in a launch of its own
    for (const int n : {1, 8, 16, 17}) {
      EXPECT_EQ(gated(rows_of(x, 5, n)), part(all, 5, n, kOut))
          << bits << " bits, " << n << " rows";
    }
  }
}

TEST_F(CudaDevice, ARowWithANormDependsOnNoOther) {
  // Spans of columns of sizes of their own, of which no warp knows the others';
  // outputs of one tile a task and of two; rows that blocks prepare and others.
  for (const int in : {640, 4096, 8704}) {
    std::vector<float> sizes(static_cast<std::size_t>(in));
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      sizes[i] = std::ldexp(1.f, static_cast<int>(i / 128 % 7) * 5 - 15);
    }
    mx::array x = mx::multiply(
        normal_array({64, in}, 3), mx::array(sizes.begin(), {1, in}));
    mx::eval(x);
    const mx::array gains = device().upload(normal_array({in}, 5));
    const mx::array bias = device().upload(normal_array({in}, 6));
    const Norm rms{.weight = gains, .eps = 1e-5f};
    const Norm layer{
        .weight = gains, .eps = 1e-5f, .is_layer_norm = true, .bias = bias};
    for (const int out : {136, 5000}) {
      const Matrix w = quantized(out, in, 4, 64);
      for (const Norm& norm : {rms, layer}) {
        const auto rows = [&](int begin, int n) {
          return on_host(
              device(),
              device().multiply(
                  device().upload(rows_of(x, begin, n)),
                  {.projections = {{&w}}, .norm = &norm})[0]);
        };
        const std::vector<float> all = rows(0, 64);
        for (const int n : {1, 2, 8, 9, 16, 17, 33}) {
          EXPECT_EQ(rows(64 - n, n), part(all, 64 - n, n, out))
              << in << " to " << out << ", " << n << " rows";
        }
      }
    }
  }
}

TEST_F(CudaDevice, WeightsOfAnySizeAreAsGood) {
  const mx::array x = normal_array({80, 512}, 3);
  const std::vector<float> expected =
      product(quantized(64, 512, 4, 64), x, Compute::Fast);
  for (const float factor : {0x1p-10f, 0x1p40f}) {
    const mx::array weight = mx::multiply(
        mx::astype(normal_array({64, 512}, 9, 0.1f), mx::bfloat16),
        mx::array(factor, mx::bfloat16));
    const AffineWeights w = quantize_affine(mx::contiguous(weight), 4, 64);
    std::vector<float> scaled = product(
        device().quantized(w.weight, w.scales, w.biases, 4, 64),
        x,
        Compute::Fast);
    for (float& y : scaled) {
      y /= factor;
    }
    EXPECT_EQ(scaled, expected) << factor;
  }
}

TEST_F(CudaDevice, ManyRowsAreGatedAsIfApart) {
  // Outputs that leave a block's tiles unfilled, of either part.
  constexpr int kIn = 640;
  constexpr int kOut = 200;
  const mx::array bias = device().upload(normal_array({kOut}, 4));
  for (const auto& [bits, rows] : std::vector<std::pair<int, int>>{
           {3, 200}, {4, 200}, {8, 200}, {3, 40}, {4, 40}, {8, 40}}) {
    const mx::array x = device().upload(normal_array({rows, kIn}, 3));
    const Matrix gate = quantized(kOut, kIn, bits, 64);
    const Matrix up = quantized(kOut, kIn, bits, 64);
    const std::vector<Projection> both{{&gate, &bias}, {&up}};
    for (const Activation activation :
         {Activation::Silu, Activation::GeluTanh}) {
      const std::vector<mx::array> apart =
          device().multiply(x, {.projections = both});
      EXPECT_EQ(
          on_host(
              device(),
              device().multiply(
                  x, {.projections = both, .activation = activation})[0]),
          on_host(device(), device().glu(apart[0], apart[1], activation)))
          << bits << " bits";
    }
  }
}

TEST_F(CudaDevice, RowsOfAnySizeAreAsExact) {
  const Matrix w = quantized(64, 512, 4, 64);
  const mx::array x = normal_array({2, 512}, 3);
  const std::vector<float> expected = product(w, x, Compute::Fast);
  for (const float factor : {0x1p-60f, 0x1p40f}) {
    std::vector<float> scaled =
        product(w, mx::multiply(x, mx::array(factor)), Compute::Fast);
    for (float& y : scaled) {
      y /= factor;
    }
    EXPECT_EQ(scaled, expected) << factor;
  }
}

TEST_F(CudaDevice, OneDigitIsFast) {
  const Matrix w = quantized(256, 4096, 4, 64);
  const mx::array x = normal_array({3, 4096}, 3);
  const std::vector<float> exact = product(w, x, Compute::Exact);
  const double error = distance(product(w, x, Compute::Fast), exact);
  // Rounded to 11 bits, 2^-12 at most, and up to 4 times that of the result.
  EXPECT_LE(error, 0x1p-10);
  EXPECT_GT(error, 0x1p-17);
}

/** K/V of one long sequence, and queries at its end. */
class LongContext {
 public:
  LongContext(
      Device& device,
      int tokens,
      KvFormat format,
      int head_dim = 128,
      int n_kv_heads = 2)
      : device_(device),
        tokens_(tokens),
        store_(device.make_block_store(1 << 24)) {
    rule_ = {
        .n_heads = 4 * n_kv_heads,
        .n_kv_heads = n_kv_heads,
        .head_dim = head_dim,
        .scores = {.scale = 0.088f}};
    format.n_kv_heads = n_kv_heads;
    format.head_dim = head_dim;
    format_ = device.kv_format(std::move(format));
    for (int i = 0; i <= tokens / 64; ++i) {
      blocks_.push_back(store_->take(format_.block_bytes()));
    }
  }
  /** With norms, positions and an output gate. */
  void add_rules() {
    const int dim = rule_.head_dim;
    rule_.q_norm = device_.upload(normal_array({dim}, 10));
    rule_.k_norm = device_.upload(normal_array({dim}, 11));
    rule_.has_output_gate = true;
    rule_.rope = Rope{};
    for (int i = 0; i < dim / 4; ++i) {
      rule_.rope->inverse_frequencies.push_back(std::pow(
          1e4f, -4.f * static_cast<float>(i) / static_cast<float>(dim)));
    }
  }
  /** All rows at once, or the last `n` behind the rest. */
  std::vector<float> last_rows(int n, int prefill) {
    const int dim = rule_.head_dim;
    const int q_dim = rule_.has_output_gate ? 2 * dim : dim;
    const mx::array q = normal_array({tokens_, rule_.n_heads * q_dim}, 1);
    const mx::array k = normal_array({tokens_, rule_.n_kv_heads * dim}, 2);
    const mx::array v = normal_array({tokens_, rule_.n_kv_heads * dim}, 3);
    std::vector<float> last;
    for (int at = 0; at < tokens_;) {
      const int rows = std::min(
          at < tokens_ - n ? std::min(prefill, tokens_ - n - at) : n,
          tokens_ - at);
      const Segment segment{.rows = rows, .start = at, .blocks = blocks_};
      last = on_host(
          device_,
          device_.attend(
              device_.upload(rows_of(q, at, rows)),
              device_.upload(rows_of(k, at, rows)),
              device_.upload(rows_of(v, at, rows)),
              rule_,
              {&segment, 1},
              format_));
      at += rows;
    }
    const int width = rule_.n_heads * dim;
    return part(last, static_cast<int>(last.size()) / width - 1, 1, width);
  }

 private:
  Device& device_;
  int tokens_;
  std::unique_ptr<BlockStore> store_;
  AttentionRule rule_;
  KvFormat format_;
  std::vector<BlockId> blocks_;
};

KvFormat dense(mx::Dtype dtype, Compute compute = Compute::Exact) {
  return {.dtype = dtype, .compute = compute};
}

KvFormat
packed(KvMethod method, double key_bits, double value_bits, Compute compute) {
  KvFormat format{.dtype = mx::bfloat16, .compute = compute};
  format.codec.method = method;
  format.codec.key_bits = key_bits;
  format.codec.value_bits = value_bits;
  return format;
}

KvFormat affine(double key_bits, double value_bits) {
  return packed(KvMethod::Affine, key_bits, value_bits, Compute::Exact);
}

TEST_F(CudaDevice, ASingleRowIsAttendedAsManyAre) {
  for (const int head_dim : {64, 128, 256}) {
    for (const KvFormat& format :
         {dense(mx::bfloat16), affine(4, 4), affine(8, 4)}) {
      LongContext context(device(), 700, format, head_dim);
      context.add_rules();
      const std::vector<float> together = context.last_rows(700, 1);
      EXPECT_EQ(context.last_rows(1, 700), together) << head_dim;
      // Every token's keys and values, too.
      EXPECT_EQ(context.last_rows(1, 1), together) << head_dim;
    }
  }
}

TEST_F(CudaDevice, ARowOfAttentionDependsOnNoOther) {
  for (const KvFormat& format :
       {dense(mx::float32),
        dense(mx::bfloat16),
        affine(4, 4),
        affine(8, 4),
        affine(8, 8)}) {
    LongContext context(device(), 1500, format);
    // Alone its spans are shared out; in a long prefill a tile goes through
    // them.
    const std::vector<float> alone = context.last_rows(1, 512);
    EXPECT_EQ(context.last_rows(5, 100), alone);
    EXPECT_EQ(context.last_rows(1500, 1), alone);
    LongContext on_cpu(cpu_device(), 1500, format);
    // Codes may differ where rounding was close.
    const double bound =
        format.codec.method == KvMethod::Dense && format.dtype == mx::float32
        ? chain_error(128 + 1500)
        : 1e-3;
    EXPECT_LE(distance(alone, on_cpu.last_rows(1, 512)), bound);
  }
}

/** Formats that attention_decode.cu reads, and how far it may be from exact:
 * queries and weights of two digits, centroids of turbo in float16, and what is
 * left of 1024 sum(q) and 1024 sum(p), which are subtracted. */
std::vector<std::pair<KvFormat, double>> decode_formats() {
  constexpr auto kFast = Compute::Fast;
  constexpr double kOfCodes = 0x1p-11;
  std::vector<std::pair<KvFormat, double>> formats{
      {dense(mx::bfloat16, kFast), 0x1p-14}};
  for (const auto& [key_bits, value_bits] :
       {std::pair{4, 4}, {8, 4}, {8, 8}, {2, 3}, {3, 5}, {5, 6}, {6, 2}}) {
    formats.emplace_back(
        packed(KvMethod::Affine, key_bits, value_bits, kFast), kOfCodes);
  }
  for (const auto& [key_bits, value_bits] : {std::pair{4, 4}, {3, 2}, {2, 3}}) {
    formats.emplace_back(
        packed(KvMethod::Turbo, key_bits, value_bits, kFast), 4 * kOfCodes);
  }
  return formats;
}

TEST_F(CudaDevice, FewRowsAreAttendedFastAndDependOnNoOther) {
  for (const int head_dim : {64, 128, 256}) {
    for (auto [format, bound] : decode_formats()) {
      const std::string name = std::to_string(head_dim) + " channels, " +
          std::to_string(format.codec.key_bits) + " bits of " +
          artifacts::name_of(format.codec.method);
      LongContext context(device(), 1100, format, head_dim);
      context.add_rules();
      const std::vector<float> alone = context.last_rows(1, 64);
      EXPECT_EQ(context.last_rows(5, 64), alone) << name;
      EXPECT_EQ(context.last_rows(64, 64), alone) << name;
      format.compute = Compute::Exact;
      LongContext exact(device(), 1100, format, head_dim);
      exact.add_rules();
      EXPECT_LE(distance(alone, exact.last_rows(1, 512)), bound) << name;
    }
  }
}

TEST_F(CudaDevice, TilesThatGoThroughTheirSpansAreAttendedAsIfCut) {
  constexpr int kKvHeads = 20; // so many tiles that nobody cuts them
  for (const KvFormat& format :
       {dense(mx::bfloat16, Compute::Fast),
        packed(KvMethod::Affine, 4, 4, Compute::Fast)}) {
    LongContext context(device(), 1300, format, 128, kKvHeads);
    EXPECT_EQ(context.last_rows(64, 64), context.last_rows(1, 64));
  }
}

TEST_F(CudaDevice, WindowsOfFewRowsAreAttendedFast) {
  for (auto [format, bound] : decode_formats()) {
    format.window = 600;
    LongContext context(device(), 1100, format);
    const std::vector<float> alone = context.last_rows(1, 64);
    EXPECT_EQ(context.last_rows(7, 64), alone);
    format.compute = Compute::Exact;
    EXPECT_LE(
        distance(alone, LongContext(device(), 1100, format).last_rows(1, 512)),
        bound);
  }
}

TEST_F(CudaDevice, IsWhatAutoTakes) {
  EXPECT_EQ(&find_device("auto"), &device());
}

TEST_F(CudaDevice, RefusesWhatItDoesNotDo) {
  const Matrix w = quantized(48, 128, 4, 64);
  const mx::array host = normal_array({2, 128}, 1);
  const mx::array x = device().upload(host);
  expect_error(ErrorKind::Unsupported, {"int8"}, [&] {
    device().multiply(x, {.projections = {{&w}}, .compute = Compute::Int8});
  });
  expect_error(ErrorKind::InvalidInput, {"cuda:0"}, [&] {
    device().multiply(host, {.projections = {{&w}}});
  });
  expect_error(ErrorKind::InvalidInput, {"cuda:0"}, [&] {
    const Matrix other = cpu_device().dense(normal_array({48, 128}, 1));
    device().multiply(x, {.projections = {{&other}}});
  });
  expect_error(
      ErrorKind::InvalidInput, {}, [&] { device().row_range(x, 1, 2); });
  expect_error(ErrorKind::NotFound, {"99"}, [] { cuda_device(99); });
}

TEST_F(CudaDevice, RefusesMoreThanItsMemoryBeforeItComputes) {
  const std::unique_ptr<BlockStore> store =
      device().make_block_store(std::size_t{1} << 30);
  EXPECT_EQ(store->take(std::size_t{1} << 50), BlockId::None);
  const mx::array x = device().upload(normal_array({2, 32}, 1));
  EXPECT_EQ(on_host(device(), device().scale(x, 1.f)), on_host(device(), x));
}

} // namespace
} // namespace optiq::kernels
