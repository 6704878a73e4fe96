#include <numeric>
#include <vector>

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "kernels/device_checks.h"
#include "support/expect_error.h"

#include "optiq/kernels/gradients.h"
#include "optiq/kernels/quantize.h"

namespace optiq::kernels {
namespace {

using test::expect_error;

constexpr int kRows = 5;
constexpr int kIn = 128;
constexpr int kOut = 48;
// Two int8 digits of activations: device.h, Compute.
constexpr double kDigits = 5e-5;

mx::array as(const mx::array& x, mx::Dtype dtype) {
  mx::array y = mx::astype(x, dtype);
  mx::eval(y);
  return y;
}

mx::array rows(unsigned seed = 1, int width = kIn) {
  return normal_array({kRows, width}, seed);
}

mx::array weight(unsigned seed) {
  return normal_array({kOut, kIn}, seed, 0.1f);
}

Matrix quantized_on(Device& device, int bits, int group, mx::Dtype dtype) {
  const AffineWeights w = quantize_affine(as(weight(9), dtype), bits, group);
  return device.quantized(w.weight, w.scales, w.biases, bits, group);
}

/** The results of a product, one after the other. */
std::vector<float>
product_of(Device& device, const mx::array& x, Product product) {
  product.compute = Compute::Exact;
  std::vector<float> all;
  for (const mx::array& y : device.multiply(device.upload(x), product)) {
    const std::vector<float> values = on_host(device, y);
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

// Of kIn products, after a norm of as many.
const double kChain = chain_error(2 * kIn);

TEST(Device, ProductsWithDenseWeights) {
  for (const mx::Dtype dtype : {mx::float32, mx::bfloat16, mx::float16}) {
    expect_same_on_both(
        {"dense",
         [&](Device& device) {
           const Matrix w = device.dense(as(weight(2), dtype));
           return product_of(device, rows(), {.projections = {{&w}}});
         },
         kChain});
  }
}

TEST(Device, ProductsWithEveryWidthAndGroup) {
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    for (const int group : {32, 64, 128}) {
      for (const mx::Dtype dtype : {mx::float32, mx::bfloat16, mx::float16}) {
        expect_same_on_both(
            {std::to_string(bits) + " bits, groups of " + std::to_string(group),
             [&](Device& device) {
               const Matrix w = quantized_on(device, bits, group, dtype);
               EXPECT_EQ(w.bits(), bits);
               EXPECT_EQ(w.in_features(), kIn);
               return product_of(device, rows(), {.projections = {{&w}}});
             },
             kDigits + kChain});
      }
    }
  }
}

TEST(Device, MlxMultipliesQuantizedWeightsInFloat32) {
  const AffineWeights w = quantize_affine(as(weight(9), mx::bfloat16), 3, 64);
  const mx::array plain = mx::dequantize(
      w.weight,
      mx::astype(w.scales, mx::float32),
      mx::astype(w.biases, mx::float32),
      64,
      3);
  Device& device = mlx_device();
  const Matrix matrix = device.quantized(w.weight, w.scales, w.biases, 3, 64);
  const mx::array expected = mx::matmul(rows(), mx::transpose(plain));
  EXPECT_LE(
      distance(
          product_of(device, rows(), {.projections = {{&matrix}}}),
          on_host(device, expected)),
      kChain);
}

TEST(Device, ProductsWithWhatComesBeforeAndAfter) {
  struct Variant {
    const char* name;
    int projections;
    bool bias;
    bool updates;
    std::optional<bool> layer_norm;
    std::optional<Activation> activation;
    bool residual;
  };
  const std::vector<Variant> variants{
      {"bias", 1, true, false, {}, {}, false},
      {"updates", 2, false, true, {}, {}, false},
      {"residual", 1, false, false, {}, {}, true},
      {"all of one", 1, true, true, false, {}, true},
      {"RMSNorm of three", 3, false, false, false, {}, false},
      {"LayerNorm", 1, false, false, true, {}, true},
      {"silu", 2, false, false, false, Activation::Silu, false},
      {"gelu", 2, false, false, {}, Activation::GeluTanh, false},
      {"silu of everything", 2, true, true, true, Activation::Silu, false}};
  for (const Variant& v : variants) {
    const auto run = [&](Device& device) {
      std::vector<Matrix> weights;
      std::vector<mx::array> biases;
      for (int i = 0; i < v.projections; ++i) {
        weights.push_back(device.dense(weight(20 + i)));
        biases.push_back(device.upload(normal_array({kOut}, 30 + i)));
      }
      const std::vector<LowRankUpdate> updates{
          {.first_row = 0,
           .rows = 2,
           .a = device.upload(normal_array({4, kIn}, 40)),
           .b = device.upload(normal_array({4, kOut}, 41)),
           .scale = 0.5f},
          {.first_row = 3,
           .rows = 1,
           .a = device.upload(as(normal_array({2, kIn}, 42), mx::bfloat16)),
           .b = device.upload(as(normal_array({2, kOut}, 43), mx::float16)),
           .scale = 2.f},
          {.first_row = 1, // some of both's rows
           .rows = 3,
           .a = device.upload(as(normal_array({18, kIn}, 44), mx::float16)),
           .b = device.upload(as(normal_array({18, kOut}, 45), mx::bfloat16)),
           .scale = 1.f}};
      const mx::array residual = device.upload(rows(50, kOut));
      const Norm norm{
          .weight = device.upload(normal_array({kIn}, 51)),
          .eps = 1e-5f,
          .is_layer_norm = v.layer_norm.value_or(false),
          .bias = v.layer_norm.value_or(false)
              ? std::optional(device.upload(normal_array({kIn}, 52)))
              : std::nullopt};
      Product product;
      for (int i = 0; i < v.projections; ++i) {
        product.projections.push_back(
            {.weight = &weights[i],
             .bias = v.bias ? &biases[i] : nullptr,
             .updates = v.updates ? std::span(updates)
                                  : std::span<const LowRankUpdate>()});
      }
      product.norm = v.layer_norm ? &norm : nullptr;
      product.activation = v.activation;
      product.residual = v.residual ? &residual : nullptr;
      return product_of(device, rows(), product);
    };
    expect_same_on_both({v.name, run, kChain});
  }
}

TEST(Device, NoRowsGiveNoRows) {
  for (Device* device : {&cpu_device(), &compared_device()}) {
    const Matrix w = quantized_on(*device, 4, 64, mx::bfloat16);
    const mx::array x = device->upload(rows());
    const mx::array none = device->row_range(x, 2, 0);
    EXPECT_TRUE(product_of(*device, none, {.projections = {{&w}}}).empty());
    const mx::array taken = device->take_rows(x, {});
    EXPECT_TRUE(on_host(*device, taken).empty());
    EXPECT_TRUE(on_host(*device, device->embed({}, w)).empty());
    EXPECT_TRUE(device->argmax(taken).empty());
  }
}

TEST(Device, RowOperations) {
  const auto check = [](const char* name, double bound, const auto& run) {
    expect_same_on_both(
        {name,
         [&](Device& device) {
           return on_host(device, run(device, device.upload(rows())));
         },
         bound});
  };
  const std::vector<std::int32_t> ids{7, 0, 47, 7};
  check("embed", 0, [&](Device& device, const mx::array&) {
    return device.embed(ids, device.dense(weight(3)), 11.3f);
  });
  check("embed quantized", kUnit * 4, [&](Device& device, const mx::array&) {
    return device.embed(ids, quantized_on(device, 5, 32, mx::bfloat16));
  });
  for (const bool is_layer_norm : {false, true}) {
    check("normalize", kChain, [&](Device& device, const mx::array& x) {
      const Norm norm{
          .weight = device.upload(normal_array({32}, 60)),
          .eps = 1e-6f,
          .is_layer_norm = is_layer_norm};
      return device.normalize(device.reshape(x, {kRows, 4, 32}), norm);
    });
  }
  for (const int width : {16, 1536, 5120}) {
    check("normalize", kChain, [&](Device& device, const mx::array&) {
      const Norm norm{
          .weight = device.upload(normal_array({width}, 60)), .eps = 1e-6f};
      return device.normalize(device.upload(normal_array({3, width}, 6)), norm);
    });
  }
  check("add and scale", kUnit * 2, [](Device& device, const mx::array& x) {
    return device.add(device.scale(x, 0.3f), device.upload(rows(61)));
  });
  for (const Activation activation : {Activation::Silu, Activation::GeluTanh}) {
    check("glu", kUnit * 16, [&](Device& device, const mx::array& x) {
      return device.glu(x, device.upload(rows(62)), activation);
    });
  }
  check("softcap", kUnit * 8, [](Device& device, const mx::array& x) {
    return device.softcap(x, 1.5f);
  });
  for (const int width : {1, 4, 32}) {
    check("sum_squares", kUnit * 16, [&](Device& device, const mx::array& x) {
      return device.sum_squares(x, width);
    });
    check("sum_squares", kUnit * 16, [&](Device& device, const mx::array& x) {
      const mx::array less = device.upload(rows(63));
      return device.sum_squares(x, width, &less);
    });
  }
  check("row_range", 0, [](Device& device, const mx::array& x) {
    return device.row_range(x, 1, 3);
  });
  check("many rows", 0, [](Device& device, const mx::array&) {
    constexpr int kMany = 70000;
    const mx::array x = device.upload(normal_array({kMany, 3}, 64));
    std::vector<int> all_but_one(kMany - 1);
    std::iota(all_but_one.begin(), all_but_one.end(), 0);
    all_but_one.back() = kMany - 1;
    const mx::array taken =
        device.take_rows(device.columns(x, 1, 2), all_but_one);
    return device.add(
        device.gradients().columns(device.columns(x, 0, 1), 1, 2),
        device.gradients().take_rows(taken, all_but_one, kMany));
  });
  check("concatenate", 0, [](Device& device, const mx::array& x) {
    const std::vector<mx::array> parts{
        x, device.row_range(x, 2, 0), device.row_range(x, 1, 2)};
    return device.concatenate(parts);
  });
  check("take_rows", 0, [](Device& device, const mx::array& x) {
    return device.take_rows(x, std::vector<int>{0, 2, 4});
  });
  check("columns", 0, [](Device& device, const mx::array& x) {
    return device.columns(x, 17, 40);
  });
}

TEST(Device, ReductionsOverTheVocabulary) {
  const auto run = [](Device& device) {
    const mx::array x = device.upload(rows());
    const mx::array y = device.upload(rows(2));
    std::vector<float> all;
    const auto append = [&](const auto& values) {
      all.insert(all.end(), values.begin(), values.end());
    };
    append(device.log_sum_exp(x));
    append(device.argmax(x));
    append(device.pick(x, std::vector<std::int32_t>{0, 127, 3, 9, 64}));
    append(device.kl_divergence(x, device.scale(y, 1.f)));
    return all;
  };
  // Those of MLX's device are the CPU's; others add up in another order.
  const bool is_mlx = &compared_device() == &mlx_device();
  expect_same_on_both({"reductions", run, is_mlx ? 0 : 2 * kUnit});
}

/** Rows of 2 blocks and a part of one, with values that are no numbers. */
std::vector<float> odd_logits() {
  const mx::array x = rows(70, 600);
  std::vector<float> logits = on_host(cpu_device(), x);
  std::fill_n(logits.begin() + 600, 256, -INFINITY); // a block of row 1
  std::fill_n(logits.begin() + 2 * 600, 600, NAN); // row 2
  logits[3 * 600 + 17] = NAN;
  logits[3 * 600 + 300] = INFINITY;
  logits[4 * 600 + 599] = 90.f;
  return logits;
}

// Seeds draw the same tokens everywhere: bit for bit.
TEST(Device, SumsOfBlocksHaveTheSameBitsEverywhere) {
  const std::vector<float> logits = odd_logits();
  const mx::array x(logits.begin(), {kRows, 600}, mx::float32);
  const std::vector<float> scales{1.f, 0.7f, 1.f, 1.f / 1.3f, 1e-3f};
  const auto sums_of = [&](Device& device) {
    return device.block_sums(device.upload(x), scales);
  };
  const auto expected = sums_of(cpu_device());
  const auto found = sums_of(compared_device());
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t t = 0; t < found.size(); ++t) {
    EXPECT_EQ(found[t].maxima, expected[t].maxima) << t;
    EXPECT_EQ(found[t].masses, expected[t].masses) << t;
    EXPECT_EQ(found[t].depths, expected[t].depths) << t;
  }
  EXPECT_GT(expected[0].masses[2], 1.0);
  EXPECT_EQ(expected[1].maxima[0], -INFINITY);
}

TEST(Device, TakesBlocksOfRows) {
  const std::vector<float> logits = odd_logits();
  Device& device = compared_device();
  const mx::array x =
      device.upload(mx::array(logits.begin(), {kRows, 600}, mx::float32));
  const std::vector<LogitBlockId> ids{{4, 2}, {0, 1}, {1, 0}};
  const HostRows taken = device.take_blocks(x, ids);
  ASSERT_EQ(taken.all().size(), ids.size() * kLogitBlock);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    for (std::size_t j = 0; j < kLogitBlock; ++j) {
      const std::size_t at = ids[i].block * kLogitBlock + j;
      const float expected =
          at < 600 ? logits[ids[i].row * 600 + at] : -INFINITY;
      ASSERT_EQ(taken.row(static_cast<int>(i))[j], expected) << i << " " << j;
    }
  }
  EXPECT_TRUE(device.take_blocks(x, {}).all().empty());
  const auto invalid = [](const std::string& what, const auto& body) {
    expect_error(ErrorKind::InvalidInput, {what}, body);
  };
  for (const LogitBlockId id : {LogitBlockId{5, 0}, {0, 3}, {-1, 0}, {0, -1}}) {
    invalid("expected a range within", [&] {
      device.take_blocks(x, {&id, 1});
    });
  }
  invalid(
      "one a row", [&] { device.block_sums(x, std::vector<float>(4, 1.f)); });
  invalid("5, 4 of them above 0", [&] {
    device.block_sums(x, std::vector<float>{1.f, 1.f, 0.f, 1.f, 1.f});
  });
}

TEST(Device, MlxChecksWhatMlxDoesNot) {
  Device& device = mlx_device();
  const mx::array x = device.upload(rows());
  const Matrix w = device.dense(weight(1));
  const auto invalid = [](const auto& body) {
    expect_error(ErrorKind::InvalidInput, {}, body);
  };
  const std::vector<int> far{0, 100000};
  invalid([&] { device.take_rows(x, far); });
  invalid([&] { device.row_range(x, 3, 3); });
  invalid([&] { device.columns(x, 100, 29); });
  invalid([&] { device.embed(far, w); });
  invalid([&] { device.pick(x, std::vector<std::int32_t>{0, 1, 2, 3, 128}); });
  invalid([&] { device.add(x, device.row_range(x, 0, 1)); });
  invalid([&] { device.reshape(x, {3, 3}); });
  invalid([&] {
    device.multiply(device.columns(x, 0, 64), {.projections = {{&w}}});
  });
  const Matrix other = cpu_device().dense(weight(1));
  invalid([&] { device.multiply(x, {.projections = {{&other}}}); });
  invalid([&] { cpu_device().multiply(x, {.projections = {{&w}}}); });
  expect_error(ErrorKind::Unsupported, {}, [&] {
    device.multiply(x, {.projections = {{&w}}, .compute = Compute::Int8});
  });
}

} // namespace
} // namespace optiq::kernels
