#include <algorithm>
#include <cstddef>

#include "optiq/base/thread_pool.h"
#include "optiq/kernels/affine_checks.h"
#include "optiq/kernels/checks_impl.h"
#include "optiq/kernels/cpu/elementwise_gradients.h"
#include "optiq/kernels/cpu/float_matmul.h"
#include "optiq/kernels/cpu/gradients.h"
#include "optiq/kernels/cpu/matrix.h"
#include "optiq/kernels/cpu/operations.h"
#include "optiq/kernels/logit_checks.h"
#include "optiq/kernels/profile.h"

namespace optiq::kernels::cpu::gradients {
namespace {

// Floats below which a second thread costs more than it saves.
constexpr std::size_t kGrain = 8192;

std::size_t rows_per_grain(std::size_t width) {
  return std::max<std::size_t>(1, kGrain / std::max<std::size_t>(1, width));
}

} // namespace

mx::array multiply(const mx::array& dy, const Matrix& weight) {
  const MatrixData& w = data_of(weight);
  const OpTimer timer([&] {
    return OpTimer::Described{
        {.name = "multiply_gradient",
         .in = w.in,
         .out = w.out,
         .bits = weight.bits()},
        weight.nbytes()};
  });
  require_rank("multiply", "dy", dy, 2);
  const int rows = dy.shape(0);
  const mx::array in = require_floats("multiply", "dy", dy, {rows, w.out});
  mx::array dx = io::make_array({rows, w.in}, mx::float32);
  const PanelWeights panels = w.panel_weights();
  RightFactor b{.stride = static_cast<std::size_t>(w.in)};
  if (w.dense) {
    b.data = w.dense->data<void>();
    b.type = w.shape.params;
  } else {
    b.panels = &panels;
  }
  multiply_floats_in_parallel(
      {.a = {io::floats(in).data(), static_cast<std::size_t>(w.out)},
       .b = b,
       .c = io::mutable_floats(dx).data(),
       .c_stride = b.stride,
       .rows = static_cast<std::size_t>(rows),
       .cols = b.stride,
       .inner = static_cast<std::size_t>(w.out)});
  return dx;
}

mx::array outer(const mx::array& dy, const mx::array& x) {
  const OpTimer timer("outer");
  require_rank("outer", "dy", dy, 2);
  require_rank("outer", "x", x, 2);
  const int rows = dy.shape(0);
  const mx::array left = io::materialize(dy);
  const mx::array right = require_floats("outer", "x", x, {rows, x.shape(1)});
  mx::array dw = io::make_array({dy.shape(1), x.shape(1)}, mx::float32);
  const auto out = static_cast<std::size_t>(dy.shape(1));
  const auto in = static_cast<std::size_t>(x.shape(1));
  multiply_floats_in_parallel(
      {.a = {io::floats(left).data(), 1, out},
       .b = {.data = io::floats(right).data(), .stride = in},
       .c = io::mutable_floats(dw).data(),
       .c_stride = in,
       .rows = out,
       .cols = in,
       .inner = static_cast<std::size_t>(rows)});
  return dw;
}

mx::array normalize(const mx::array& dy, const mx::array& x, const Norm& norm) {
  const OpTimer timer("normalize_gradient");
  constexpr const char* kFunction = "normalize";
  const mx::array in = require_floats(kFunction, "x", x, x.shape());
  const mx::array from = require_floats(kFunction, "dy", dy, x.shape());
  const mx::array w =
      require_floats(kFunction, "weight", norm.weight, {x.shape(-1)});
  mx::array dx = io::make_array(x.shape(), mx::float32);
  const auto dim = static_cast<std::size_t>(x.shape(-1));
  const auto kernel =
      norm.is_layer_norm ? layer_norm_gradient : rms_norm_gradient;
  float* to = io::mutable_floats(dx).data();
  parallel_for(
      x.size() / dim,
      rows_per_grain(dim),
      [&](std::size_t begin, std::size_t end) {
        kernel(
            io::floats(from).data() + begin * dim,
            io::floats(in).data() + begin * dim,
            io::floats(w).data(),
            norm.eps,
            end - begin,
            dim,
            to + begin * dim);
      });
  return dx;
}

std::pair<mx::array, mx::array> glu(
    const mx::array& dy,
    const mx::array& gate,
    const mx::array& up,
    Activation activation) {
  const OpTimer timer("glu_gradient");
  const mx::array y = require_floats("glu", "dy", dy, gate.shape());
  const mx::array g = require_floats("glu", "gate", gate, gate.shape());
  const mx::array u = require_floats("glu", "up", up, gate.shape());
  mx::array dgate = io::make_array(gate.shape(), mx::float32);
  mx::array dup = io::make_array(gate.shape(), mx::float32);
  const GluGradient to{
      io::mutable_floats(dgate).data(), io::mutable_floats(dup).data()};
  const auto kernel =
      activation == Activation::Silu ? swiglu_gradient : geglu_gradient;
  parallel_for(gate.size(), kGrain, [&](std::size_t begin, std::size_t end) {
    kernel(
        io::floats(y).data() + begin,
        io::floats(g).data() + begin,
        io::floats(u).data() + begin,
        end - begin,
        {to.gate + begin, to.up + begin});
  });
  return {dgate, dup};
}

mx::array softcap(const mx::array& dy, const mx::array& y, float cap) {
  const OpTimer timer("softcap_gradient");
  const mx::array from = require_floats("softcap", "dy", dy, y.shape());
  const mx::array capped = require_floats("softcap", "y", y, y.shape());
  mx::array dx = io::make_array(y.shape(), mx::float32);
  float* to = io::mutable_floats(dx).data();
  parallel_for(y.size(), kGrain, [&](std::size_t begin, std::size_t end) {
    softcap_gradient(
        io::floats(from).data() + begin,
        io::floats(capped).data() + begin,
        cap,
        end - begin,
        to + begin);
  });
  return dx;
}

std::pair<mx::array, mx::array>
sigmoid_gate(const mx::array& dy, const mx::array& x, const mx::array& gate) {
  const OpTimer timer("sigmoid_gate_gradient");
  constexpr const char* kFunction = "sigmoid_gate";
  const mx::array y = require_floats(kFunction, "dy", dy, x.shape());
  const mx::array in = require_floats(kFunction, "x", x, x.shape());
  const mx::array g = require_floats(kFunction, "gate", gate, x.shape());
  mx::array dx = io::make_array(x.shape(), mx::float32);
  mx::array dgate = io::make_array(x.shape(), mx::float32);
  const SigmoidGateGradient to{
      io::mutable_floats(dx).data(), io::mutable_floats(dgate).data()};
  parallel_for(x.size(), kGrain, [&](std::size_t begin, std::size_t end) {
    sigmoid_gate_gradient(
        io::floats(y).data() + begin,
        io::floats(in).data() + begin,
        io::floats(g).data() + begin,
        end - begin,
        {to.x + begin, to.gate + begin});
  });
  return {dx, dgate};
}

mx::array columns(const mx::array& dy, int begin, int width) {
  const OpTimer timer("columns_gradient");
  require_rank("columns", "dy", dy, 2);
  const int n = dy.shape(1);
  if (begin < 0 || n > width - begin) {
    fail(
        ErrorKind::InvalidInput,
        "[columns] found columns {} + {}, expected them within {}.",
        begin,
        n,
        width);
  }
  const mx::array in = io::materialize(dy);
  mx::array dx = io::make_array({dy.shape(0), width}, mx::float32);
  const float* from = io::floats(in).data();
  float* to = io::mutable_floats(dx).data();
  for (int t = 0; t < dy.shape(0); ++t, from += n) {
    to = std::fill_n(to, begin, 0.f);
    to = std::copy_n(from, n, to);
    to = std::fill_n(to, width - begin - n, 0.f);
  }
  return dx;
}

mx::array take_rows(const mx::array& dy, std::span<const int> rows, int n) {
  const OpTimer timer("take_rows_gradient");
  const mx::array in = require_floats(
      "take_rows", "dy", dy, {static_cast<int>(rows.size()), dy.shape(-1)});
  const int width = dy.shape(-1);
  mx::array dx = io::make_array({n, width}, mx::float32);
  const float* from = io::floats(in).data();
  float* to = io::mutable_floats(dx).data();
  std::fill_n(to, dx.size(), 0.f);
  for (const int row : rows) {
    if (row < 0 || row >= n) {
      fail(
          ErrorKind::InvalidInput,
          "[take_rows] row: found {}, expected one below {}.",
          row,
          n);
    }
    std::copy_n(from, width, to + static_cast<std::size_t>(row) * width);
    from += width;
  }
  return dx;
}

LogitLoss cross_entropy(
    const mx::array& logits,
    std::span<const std::int32_t> labels,
    std::span<const float> weights) {
  require_labels("cross_entropy", logits, labels, weights);
  const std::vector<double> sums = log_sum_exp(logits);
  const OpTimer timer("cross_entropy");
  const mx::array in = io::materialize(logits);
  mx::array gradient = io::make_array(logits.shape(), mx::float32);
  std::vector<double> losses(labels.size());
  const auto width = static_cast<std::size_t>(logits.shape(1));
  const float* from = io::floats(in).data();
  float* to = io::mutable_floats(gradient).data();
  parallel_for(
      labels.size(),
      rows_per_grain(width),
      [&](std::size_t begin, std::size_t end) {
        for (std::size_t t = begin; t < end; ++t) {
          losses[t] = sums[t] - double{from[t * width + labels[t]]};
          cross_entropy_gradient(
              from + t * width,
              sums[t],
              labels[t],
              weights[t],
              width,
              to + t * width);
        }
      });
  return {std::move(losses), gradient};
}

LogitLoss kl_divergence(
    const mx::array& reference,
    const mx::array& logits,
    std::span<const float> weights) {
  constexpr const char* kFunction = "kl_divergence";
  std::vector<double> losses = cpu::kl_divergence(reference, logits);
  require_weights(kFunction, logits, weights);
  const std::vector<double> reference_sums = log_sum_exp(reference);
  const std::vector<double> sums = log_sum_exp(logits);
  const OpTimer timer("kl_divergence_gradient");
  const mx::array p = io::materialize(reference);
  const mx::array q = io::materialize(logits);
  mx::array gradient = io::make_array(logits.shape(), mx::float32);
  const auto width = static_cast<std::size_t>(logits.shape(1));
  float* to = io::mutable_floats(gradient).data();
  parallel_for(
      losses.size(),
      rows_per_grain(width),
      [&](std::size_t begin, std::size_t end) {
        for (std::size_t t = begin; t < end; ++t) {
          kl_divergence_gradient(
              {io::floats(p).data() + t * width, reference_sums[t]},
              {io::floats(q).data() + t * width, sums[t]},
              weights[t],
              width,
              to + t * width);
        }
      });
  return {std::move(losses), gradient};
}

} // namespace optiq::kernels::cpu::gradients
