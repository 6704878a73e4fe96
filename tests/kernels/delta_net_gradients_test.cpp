#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/gradient_checks.h"
#include "support/expect_error.h"

#include "optiq/kernels/gradients.h"

/** A gated delta net backwards, against central differences in double. */
namespace optiq::kernels {
namespace {

using testing::normal_array;

struct NetCase {
  DeltaNetShape shape;
  std::vector<int> lengths; // of the batch's sequences

  DeltaNetWeights weights() const {
    return {
        .conv = normal_array({shape.qkv_dim(), shape.conv_kernel}, 900),
        .a_log = normal_array({shape.n_value_heads}, 901),
        .dt_bias = normal_array({shape.n_value_heads}, 902),
        .norm = normal_array({shape.value_dim}, 903),
        .norm_eps = 1e-3f};
  }
  DeltaNetWeights weights_on(Device& device) const {
    DeltaNetWeights all = weights();
    all.conv = device.upload(all.conv);
    all.a_log = device.upload(all.a_log);
    all.dt_bias = device.upload(all.dt_bias);
    all.norm = device.upload(all.norm);
    return all;
  }
  int rows() const {
    int n = 0;
    for (const int length : lengths) {
      n += length;
    }
    return n;
  }
  std::vector<Segment> segments() const {
    std::vector<Segment> all;
    int next = 0;
    for (const int length : lengths) {
      all.push_back({.first_row = next, .rows = length});
      next += length;
    }
    return all;
  }
};

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

/** x / sqrt(sum x^2 + 1e-6) * factor, in place. */
void make_unit(double* x, int dim, double factor) {
  double square = 1e-6;
  for (int i = 0; i < dim; ++i) {
    square += x[i] * x[i];
  }
  for (int i = 0; i < dim; ++i) {
    x[i] *= factor / std::sqrt(square);
  }
}

/** One sequence from a state of zeros, by the formulas of the paper. */
class Oracle {
 public:
  explicit Oracle(const NetCase& c)
      : s_(c.shape),
        conv_(doubles_of(c.weights().conv)),
        a_log_(doubles_of(c.weights().a_log)),
        dt_bias_(doubles_of(c.weights().dt_bias)),
        norm_(doubles_of(c.weights().norm)),
        eps_(c.weights().norm_eps) {}

  Doubles run(
      const Doubles& qkv,
      const Doubles& z,
      const Doubles& b,
      const Doubles& a,
      int first,
      int rows) const {
    const int channels = s_.qkv_dim();
    const int width = s_.n_value_heads * s_.value_dim;
    Doubles states(s_.state_floats());
    Doubles y;
    for (int t = 0; t < rows; ++t) {
      Doubles row(channels);
      for (int c = 0; c < channels; ++c) {
        for (int j = std::max(0, s_.conv_kernel - 1 - t); j < s_.conv_kernel;
             ++j) {
          row[c] += conv_[c * s_.conv_kernel + j] *
              qkv[(first + t + j + 1 - s_.conv_kernel) * channels + c];
        }
        row[c] *= sigmoid(row[c]);
      }
      for (int h = 0; h < s_.n_key_heads; ++h) {
        make_unit(
            row.data() + h * s_.key_dim, s_.key_dim, 1 / std::sqrt(s_.key_dim));
        make_unit(
            row.data() + (s_.n_key_heads + h) * s_.key_dim, s_.key_dim, 1);
      }
      for (int h = 0; h < s_.n_value_heads; ++h) {
        const int at = (first + t) * s_.n_value_heads + h;
        const Doubles head = step(row, a[at], b[at], h, states);
        const Doubles out =
            gated(head, z.data() + (first + t) * width + h * s_.value_dim);
        y.insert(y.end(), out.begin(), out.end());
      }
    }
    return y;
  }

 private:
  Doubles step(
      const Doubles& row,
      double a,
      double b,
      int head,
      Doubles& states) const {
    const int dk = s_.key_dim;
    const int dv = s_.value_dim;
    const int key_head = head / (s_.n_value_heads / s_.n_key_heads);
    const double* q = row.data() + key_head * dk;
    const double* k = q + s_.n_key_heads * dk;
    const double* v = row.data() + 2 * s_.n_key_heads * dk + head * dv;
    double* state = states.data() + head * dk * dv;
    const double decay = std::exp(
        -std::exp(a_log_[head]) * std::log1p(std::exp(a + dt_bias_[head])));
    Doubles y(dv);
    for (int j = 0; j < dv; ++j) {
      double memory = 0;
      for (int i = 0; i < dk; ++i) {
        state[i * dv + j] *= decay;
        memory += state[i * dv + j] * k[i];
      }
      for (int i = 0; i < dk; ++i) {
        state[i * dv + j] += k[i] * sigmoid(b) * (v[j] - memory);
        y[j] += state[i * dv + j] * q[i];
      }
    }
    return y;
  }

  Doubles gated(const Doubles& y, const double* z) const {
    double square = 0;
    for (const double value : y) {
      square += value * value;
    }
    const auto dim = static_cast<double>(y.size());
    Doubles out(y.size());
    for (std::size_t i = 0; i < y.size(); ++i) {
      out[i] = y[i] / std::sqrt(square / dim + eps_) * norm_[i] * z[i] *
          sigmoid(z[i]);
    }
    return out;
  }

  DeltaNetShape s_;
  Doubles conv_;
  Doubles a_log_;
  Doubles dt_bias_;
  Doubles norm_;
  double eps_;
};

GradientCase gradient_case(const NetCase& c) {
  const DeltaNetShape& s = c.shape;
  const int width = s.n_value_heads * s.value_dim;
  const DeltaNetInput input{
      normal_array({c.rows(), s.qkv_dim()}, 1),
      normal_array({c.rows(), width}, 2),
      normal_array({c.rows(), s.n_value_heads}, 3),
      normal_array({c.rows(), s.n_value_heads}, 4)};
  const Oracle oracle(c);
  return {
      .name = std::to_string(c.rows()) + " rows of " +
          std::to_string(s.key_dim) + " x " + std::to_string(s.value_dim),
      .inputs = {input.qkv, input.z, input.b, input.a},
      .output = {c.rows(), width},
      .function =
          [=](const std::vector<Doubles>& x) {
            Doubles y;
            for (const Segment& segment : c.segments()) {
              const Doubles own = oracle.run(
                  x[0], x[1], x[2], x[3], segment.first_row, segment.rows);
              y.insert(y.end(), own.begin(), own.end());
            }
            return y;
          },
      .gradients = [=](Device& device, const mx::array& dy) -> Arrays {
        const DeltaNetInput d = device.gradients().gated_delta_net(
            dy,
            {device.upload(input.qkv),
             device.upload(input.z),
             device.upload(input.b),
             device.upload(input.a)},
            c.weights_on(device),
            c.shape,
            c.segments());
        return {d.qkv, d.z, d.b, d.a};
      },
      // Every token's state is made of all before it, and the norm divides.
      .chain = 20 * c.rows() + 2000};
}

NetCase net(
    int key_heads,
    int value_heads,
    int key_dim,
    int value_dim,
    std::vector<int> lengths,
    int kernel = 4) {
  return {
      {.n_key_heads = key_heads,
       .n_value_heads = value_heads,
       .key_dim = key_dim,
       .value_dim = value_dim,
       .conv_kernel = kernel},
      std::move(lengths)};
}

TEST(DeltaNetGradients, OfOneSequence) {
  for (const int rows : {1, 2, 15, 16, 17, 40}) { // chunks of 16
    expect_gradients_on_all(gradient_case(net(1, 1, 8, 8, {rows})));
  }
}

TEST(DeltaNetGradients, OfSharedKeysAndOddSizes) {
  expect_gradients_on_all(gradient_case(net(2, 4, 8, 16, {20})));
  expect_gradients_on_all(gradient_case(net(1, 3, 16, 24, {9}, 2)));
  // Several strips of columns, and the keys' channels of real models.
  expect_gradients_on_all(gradient_case(net(1, 2, 128, 72, {35, 4})));
  expect_gradients_on_all(gradient_case(net(1, 1, 160, 40, {18})));
}

TEST(DeltaNetGradients, OfPackedSequences) {
  expect_gradients_on_all(gradient_case(net(2, 2, 8, 8, {3, 1, 18, 2})));
}

TEST(DeltaNetGradients, DoNotDependOnThreads) {
  expect_same_bits_at_any_threads(gradient_case(net(2, 4, 16, 16, {50, 3})));
}

TEST(DeltaNetGradients, RefuseThePast) {
  const NetCase c = net(1, 1, 8, 8, {2});
  const mx::array x = normal_array({2, 24}, 1);
  const mx::array z = normal_array({2, 8}, 1);
  const mx::array b = normal_array({2, 1}, 1);
  const std::vector<Segment> segments{{.first_row = 0, .rows = 2, .start = 1}};
  for (Device* device : {&cpu_device(), &mlx_device()}) {
    optiq::test::expect_error(
        ErrorKind::InvalidInput, {"position 1", "whole sequences"}, [&] {
          device->gradients().gated_delta_net(
              z, {x, z, b, b}, c.weights(), c.shape, segments);
        });
  }
}

} // namespace
} // namespace optiq::kernels
