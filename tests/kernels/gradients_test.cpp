#include "optiq/kernels/gradients.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/gradient_checks.h"
#include "kernels/matrix_support.h"
#include "support/expect_error.h"

namespace optiq::kernels {
namespace {

using testing::normal_array;

/** y = x W^T for W [out, in] in double. */
Doubles product(
    const Doubles& x,
    int rows,
    int out,
    int in,
    const std::function<double(int, int)>& weight) {
  Doubles y(static_cast<std::size_t>(rows) * out);
  for (int t = 0; t < rows; ++t) {
    for (int o = 0; o < out; ++o) {
      for (int i = 0; i < in; ++i) {
        y[t * out + o] += x[t * in + i] * weight(o, i);
      }
    }
  }
  return y;
}

GradientCase dense_case(int rows, int out, int in, mx::Dtype dtype) {
  const mx::array w =
      io::materialize(mx::astype(normal_array({out, in}, 5), dtype));
  const mx::array values = io::materialize(mx::astype(w, mx::float32));
  return {
      .name = "dense " + std::to_string(rows) + " " + std::to_string(out) +
          " " + std::to_string(in),
      .inputs = {normal_array({rows, in}, 1)},
      .output = {rows, out},
      .function =
          [=](const std::vector<Doubles>& x) {
            return product(x[0], rows, out, in, [&](int o, int i) {
              return io::floats(values)[o * in + i];
            });
          },
      .gradients = [=](Device& device, const mx::array& dy) -> Arrays {
        return {device.gradients().multiply(dy, device.dense(w))};
      },
      .chain = out};
}

GradientCase quantized_case(int rows, int out, int in, int bits, int group) {
  const auto c = std::make_shared<test::AffineCase>(
      test::make_affine(out, in, bits, group));
  return {
      .name = std::to_string(bits) + " bits, groups of " +
          std::to_string(group) + ", " + std::to_string(out) + " outputs",
      .inputs = {normal_array({rows, in}, 1)},
      .output = {rows, out},
      .function =
          [=](const std::vector<Doubles>& x) {
            return product(x[0], rows, out, in, [&](int o, int i) {
              return c->weight(o, i);
            });
          },
      .gradients = [=](Device& device, const mx::array& dy) -> Arrays {
        return {device.gradients().multiply(
            dy,
            device.quantized(
                c->triple.weight,
                c->triple.scales,
                c->triple.biases,
                bits,
                group))};
      },
      // Codes times scales plus biases, and the sum.
      .chain = 4 * out};
}

TEST(Gradients, OfDenseProducts) {
  for (const mx::Dtype dtype : {mx::float32, mx::bfloat16, mx::float16}) {
    expect_gradients_on_all(dense_case(7, 33, 20, dtype));
  }
  // More than a block of sums, columns that fill no tile, one row.
  expect_gradients_on_all(dense_case(1, 200, 70, mx::float32));
  expect_gradients_on_all(dense_case(13, 97, 65, mx::float32));
  expect_gradients_on_all(dense_case(6, 1, 1, mx::float32));
  // So large that a card has large tiles for it; halves that its tensor cores
  // read.
  expect_gradients_on_all(dense_case(130, 20, 8500, mx::bfloat16));
}

TEST(Gradients, OfQuantizedProducts) {
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    for (const int group : {32, 64, 128}) {
      expect_gradients_on_all(quantized_case(5, 40, 128, bits, group));
    }
  }
  expect_gradients_on_all(quantized_case(9, 131, 96, 4, 32));
  expect_gradients_on_all(quantized_case(3, 16, 320, 3, 64));
  // More than a card unpacks at once.
  expect_gradients_on_all(quantized_case(2, 3000, 2048, 4, 64));
}

TEST(Gradients, OfWeights) {
  constexpr int kRows = 103;
  constexpr int kOut = 14;
  constexpr int kIn = 37;
  const mx::array x = normal_array({kRows, kIn}, 3);
  const GradientCase c{
      .name = "outer",
      .inputs = {normal_array({kOut, kIn}, 4)},
      .output = {kRows, kOut},
      .function =
          [&](const std::vector<Doubles>& w) {
            return product(doubles_of(x), kRows, kOut, kIn, [&](int o, int i) {
              return w[0][o * kIn + i];
            });
          },
      .gradients = [&](Device& device, const mx::array& dy) -> Arrays {
        return {device.gradients().outer(dy, device.upload(x))};
      },
      .chain = kRows};
  expect_gradients_on_all(c);
}

Doubles normed(
    const Doubles& x,
    std::size_t dim,
    const Doubles& weight,
    double eps,
    bool centers) {
  Doubles y(x.size());
  for (std::size_t at = 0; at < x.size(); at += dim) {
    double mean = 0;
    for (std::size_t i = 0; centers && i < dim; ++i) {
      mean += x[at + i] / static_cast<double>(dim);
    }
    double square = 0;
    for (std::size_t i = 0; i < dim; ++i) {
      square += (x[at + i] - mean) * (x[at + i] - mean);
    }
    for (std::size_t i = 0; i < dim; ++i) {
      y[at + i] = (x[at + i] - mean) * weight[i] /
          std::sqrt(square / static_cast<double>(dim) + eps);
    }
  }
  return y;
}

TEST(Gradients, OfNorms) {
  for (const bool centers : {false, true}) {
    for (const int dim : {1, 15, 16, 17, 65}) {
      const mx::array weight = normal_array({dim}, 9);
      const Norm norm{.weight = weight, .eps = 0.01f, .is_layer_norm = centers};
      const mx::array x = normal_array({3, dim}, 2);
      expect_gradients_on_all(
          {.name = "norm " + std::to_string(dim),
           .inputs = {x},
           .output = x.shape(),
           .function =
               [&](const std::vector<Doubles>& in) {
                 return normed(
                     in[0], dim, doubles_of(weight), norm.eps, centers);
               },
           .gradients = [&](Device& device, const mx::array& dy) -> Arrays {
             Norm there = norm;
             there.weight = device.upload(weight);
             return {device.gradients().normalize(dy, device.upload(x), there)};
           }});
    }
  }
}

TEST(Gradients, OfGatedUnits) {
  for (const Activation activation : {Activation::Silu, Activation::GeluTanh}) {
    const mx::array gate = normal_array({5, 19}, 2, 3.f);
    const mx::array up = normal_array({5, 19}, 3);
    expect_gradients_on_all(
        {.name = activation == Activation::Silu ? "swiglu" : "geglu",
         .inputs = {gate, up},
         .output = gate.shape(),
         .function =
             [&](const std::vector<Doubles>& x) {
               Doubles y(x[0].size());
               for (std::size_t i = 0; i < y.size(); ++i) {
                 const double g = x[0][i];
                 const double u = activation == Activation::Silu
                     ? g
                     : 1.5957691216057308 * (g + 0.044715 * g * g * g);
                 y[i] = g / (1 + std::exp(-u)) * x[1][i];
               }
               return y;
             },
         .gradients = [&](Device& device, const mx::array& dy) -> Arrays {
           const auto [dgate, dup] = device.gradients().glu(
               dy, device.upload(gate), device.upload(up), activation);
           return {dgate, dup};
         }});
  }
}

TEST(Gradients, OfSoftcap) {
  constexpr float kCap = 2.5f;
  const mx::array x = normal_array({4, 21}, 6, 3.f);
  expect_gradients_on_all(
      {.name = "softcap",
       .inputs = {x},
       .output = x.shape(),
       .function =
           [&](const std::vector<Doubles>& in) {
             Doubles y = in[0];
             for (double& value : y) {
               value = kCap * std::tanh(value / kCap);
             }
             return y;
           },
       .gradients = [&](Device& device, const mx::array& dy) -> Arrays {
         return {device.gradients().softcap(
             dy, device.softcap(device.upload(x), kCap), kCap)};
       },
       // Where the cap is near, 1 - t^2 is the difference of two near numbers.
       .chain = 10000});
}

TEST(Gradients, OfMoves) {
  const mx::array x = normal_array({6, 10}, 8);
  const std::vector<int> rows{1, 2, 5};
  expect_gradients_on_all(
      {.name = "columns",
       .inputs = {x},
       .output = {6, 3},
       .function =
           [&](const std::vector<Doubles>& in) {
             Doubles y;
             for (int t = 0; t < 6; ++t) {
               for (int i = 4; i < 7; ++i) {
                 y.push_back(in[0][t * 10 + i]);
               }
             }
             return y;
           },
       .gradients = [&](Device& device, const mx::array& dy) -> Arrays {
         return {device.gradients().columns(dy, 4, 10)};
       }});
  expect_gradients_on_all(
      {.name = "take_rows",
       .inputs = {x},
       .output = {3, 10},
       .function =
           [&](const std::vector<Doubles>& in) {
             Doubles y;
             for (const int row : rows) {
               y.insert(
                   y.end(),
                   in[0].begin() + row * 10,
                   in[0].begin() + (row + 1) * 10);
             }
             return y;
           },
       .gradients = [&](Device& device, const mx::array& dy) -> Arrays {
         return {device.gradients().take_rows(dy, rows, 6)};
       }});
}

TEST(Gradients, OfCrossEntropy) {
  constexpr int kVocab = 53;
  const mx::array logits = normal_array({4, kVocab}, 8, 3.f);
  const std::vector<std::int32_t> labels{0, 52, 17, 3};
  const std::vector<float> weights{1.f, 0.5f, 0.f, 2.f};
  const auto losses_of = [&](const Doubles& x) {
    Doubles losses;
    for (int t = 0; t < 4; ++t) {
      double sum = 0;
      for (int i = 0; i < kVocab; ++i) {
        sum += std::exp(x[t * kVocab + i]);
      }
      losses.push_back(std::log(sum) - x[t * kVocab + labels[t]]);
    }
    return losses;
  };
  expect_gradients_on_all(
      {.name = "cross entropy",
       .inputs = {logits},
       .output = {1},
       .function =
           [&](const std::vector<Doubles>& x) {
             const Doubles losses = losses_of(x[0]);
             double sum = 0;
             for (int t = 0; t < 4; ++t) {
               sum += double{weights[t]} * losses[t];
             }
             return Doubles{sum};
           },
       .gradients = [&](Device& device, const mx::array& dy) -> Arrays {
         const LogitLoss found = device.gradients().cross_entropy(
             device.upload(logits), labels, weights);
         const Doubles expected = losses_of(doubles_of(logits));
         for (int t = 0; t < 4; ++t) {
           EXPECT_NEAR(found.losses[t], expected[t], 1e-5) << t;
         }
         return {device.scale(found.gradient, on_host(device, dy).front())};
       }});
}

TEST(Gradients, OfKlDivergence) {
  constexpr int kVocab = 53;
  const mx::array logits = normal_array({4, kVocab}, 2, 3.f);
  const mx::array reference = normal_array({4, kVocab}, 3, 3.f);
  const std::vector<float> weights{1.f, 0.5f, 0.f, 2.f};
  const auto log_softmax = [&](const Doubles& x) {
    Doubles y(x);
    for (int t = 0; t < 4; ++t) {
      double sum = 0;
      for (int i = 0; i < kVocab; ++i) {
        sum += std::exp(x[t * kVocab + i]);
      }
      for (int i = 0; i < kVocab; ++i) {
        y[t * kVocab + i] -= std::log(sum);
      }
    }
    return y;
  };
  const Doubles log_p = log_softmax(doubles_of(reference));
  const auto losses_of = [&](const Doubles& x) {
    const Doubles log_q = log_softmax(x);
    Doubles losses(4);
    for (int i = 0; i < 4 * kVocab; ++i) {
      losses[i / kVocab] += std::exp(log_p[i]) * (log_p[i] - log_q[i]);
    }
    return losses;
  };
  expect_gradients_on_all(
      {.name = "KL divergence",
       .inputs = {logits},
       .output = {1},
       .function =
           [&](const std::vector<Doubles>& x) {
             const Doubles losses = losses_of(x[0]);
             double sum = 0;
             for (int t = 0; t < 4; ++t) {
               sum += double{weights[t]} * losses[t];
             }
             return Doubles{sum};
           },
       .gradients = [&](Device& device, const mx::array& dy) -> Arrays {
         const LogitLoss found = device.gradients().kl_divergence(
             device.upload(reference), device.upload(logits), weights);
         const Doubles expected = losses_of(doubles_of(logits));
         for (int t = 0; t < 4; ++t) {
           EXPECT_NEAR(found.losses[t], expected[t], 1e-5) << t;
         }
         return {device.scale(found.gradient, on_host(device, dy).front())};
       }});
}

TEST(Gradients, DoNotDependOnThreads) {
  expect_same_bits_at_any_threads(quantized_case(64, 160, 192, 4, 64));
  expect_same_bits_at_any_threads(dense_case(90, 64, 70, mx::bfloat16));
}

TEST(Gradients, RefuseWhatDoesNotFit) {
  Gradients& gradients = cpu_device().gradients();
  const Matrix w = cpu_device().dense(normal_array({3, 4}, 1));
  const mx::array x = normal_array({2, 4}, 1);
  optiq::test::expect_error(ErrorKind::InvalidInput, {"float32 [2, 3]"}, [&] {
    gradients.multiply(x, w);
  });
  const std::vector<float> weights(2, 1.f);
  optiq::test::expect_error(ErrorKind::InvalidInput, {"below 4"}, [&] {
    gradients.cross_entropy(x, std::vector<std::int32_t>{1, 4}, weights);
  });
  optiq::test::expect_error(ErrorKind::InvalidInput, {"1 labels"}, [&] {
    gradients.cross_entropy(x, std::vector<std::int32_t>{1}, weights);
  });
  optiq::test::expect_error(ErrorKind::InvalidInput, {"1 weights"}, [&] {
    gradients.kl_divergence(x, x, std::vector<float>{1.f});
  });
  const std::vector<int> rows{0, 7};
  optiq::test::expect_error(ErrorKind::InvalidInput, {"below 7"}, [&] {
    gradients.take_rows(x, rows, 7);
  });
}

} // namespace
} // namespace optiq::kernels
