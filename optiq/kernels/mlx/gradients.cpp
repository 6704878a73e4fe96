#include "optiq/kernels/mlx/gradients.h"

#include <functional>
#include <utility>
#include <vector>

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "optiq/kernels/mlx/guarded_impl.h"
#include "optiq/kernels/mlx/operations.h"
#include "optiq/kernels/mlx/portable.h"
#include "optiq/kernels/segment_checks.h"
#include "optiq/kernels/shape_checks_impl.h"

namespace optiq::kernels::portable {
namespace {

using Arrays = std::vector<mx::array>;

/** dL/d inputs of dL/dy, y = f(inputs). */
Arrays pull_back(
    const char* function,
    const std::function<mx::array(const Arrays&)>& f,
    const Arrays& inputs,
    const mx::array& dy) {
  return guarded(function, [&] {
    return mx::vjp([&](const Arrays& x) { return Arrays{f(x)}; }, inputs, {dy})
        .second;
  });
}

/** Like x in shape and dtype: for operations that are linear in it. */
mx::array any_input(const mx::array& dy, const mx::Shape& shape) {
  return mx::zeros(shape, dy.dtype());
}

mx::array ids_of(std::span<const int> values) {
  return mx::array(values.data(), {static_cast<int>(values.size())}, mx::int32);
}

/** One sequence after another, from states of zeros. */
mx::array delta_net_whole(
    const DeltaNetInput& input,
    const DeltaNetWeights& weights,
    const DeltaNetShape& shape,
    std::span<const Segment> segments) {
  Arrays outputs;
  for (const Segment& s : segments) {
    const auto rows_of = [&](const mx::array& x) {
      return mx::slice(x, {s.first_row, 0}, {s.first_row + s.rows, x.shape(1)});
    };
    if (s.rows > 0) {
      outputs.push_back(
          gated_delta_net(
              {rows_of(input.qkv),
               rows_of(input.z),
               rows_of(input.b),
               rows_of(input.a)},
              weights,
              shape,
              mx::zeros({shape.conv_kernel - 1, shape.qkv_dim()}, mx::float32),
              mx::zeros(
                  {shape.n_value_heads, shape.value_dim, shape.key_dim},
                  mx::float32))
              .y);
    }
  }
  return outputs.empty() ? input.z : mx::concatenate(std::move(outputs), 0);
}

class MlxGradients final : public Gradients {
 public:
  mx::array multiply(const mx::array& dy, const Matrix& weight) override {
    const int rows = dy.ndim() == 2 ? dy.shape(0) : 0;
    require_shape("multiply", "dy", dy, {rows, weight.out_features()});
    Product product;
    product.projections = {{.weight = &weight}};
    product.compute = Compute::Exact;
    return pull_back(
               "multiply",
               [&](const Arrays& x) {
                 return portable::multiply(x[0], product).front();
               },
               {any_input(dy, {rows, weight.in_features()})},
               dy)
        .front();
  }
  mx::array outer(const mx::array& dy, const mx::array& x) override {
    return guarded("outer", [&] { return mx::matmul(mx::transpose(dy), x); });
  }
  mx::array normalize(const mx::array& dy, const mx::array& x, const Norm& norm)
      override {
    return pull_back(
               "normalize",
               [&](const Arrays& in) {
                 return portable::normalize(in[0], norm);
               },
               {x},
               dy)
        .front();
  }
  std::pair<mx::array, mx::array> glu(
      const mx::array& dy,
      const mx::array& gate,
      const mx::array& up,
      Activation activation) override {
    const Arrays d = pull_back(
        "glu",
        [&](const Arrays& in) {
          return portable::glu(in[0], in[1], activation);
        },
        {gate, up},
        dy);
    return {d[0], d[1]};
  }
  mx::array softcap(const mx::array& dy, const mx::array& y, float cap)
      override {
    return guarded("softcap", [&] {
      const mx::array t = mx::divide(y, scalar_of(y, cap));
      return mx::multiply(dy, mx::subtract(scalar_of(y, 1.f), mx::square(t)));
    });
  }
  mx::array columns(const mx::array& dy, int begin, int width) override {
    const int rows = dy.shape(0);
    check_range("columns", "columns", begin, dy.shape(1), width);
    return pull_back(
               "columns",
               [&](const Arrays& x) {
                 return mx::slice(
                     x[0], {0, begin}, {rows, begin + dy.shape(1)});
               },
               {any_input(dy, {rows, width})},
               dy)
        .front();
  }
  mx::array take_rows(const mx::array& dy, std::span<const int> rows, int n)
      override {
    for (const int row : rows) {
      check_range("take_rows", "row", row, 1, n);
    }
    return pull_back(
               "take_rows",
               [&](const Arrays& x) { return mx::take(x[0], ids_of(rows), 0); },
               {any_input(dy, {n, dy.shape(1)})},
               dy)
        .front();
  }
  AttentionGradients attend(
      const mx::array& dy,
      const mx::array& q,
      const mx::array& k,
      const mx::array& v,
      const AttentionRule& rule,
      std::span<const Segment> segments,
      int window) override {
    check_whole_sequences("attend", segments, q.shape(0));
    const Arrays d = pull_back(
        "attend",
        [&](const Arrays& in) {
          return attend_whole(in[0], in[1], in[2], rule, segments, window);
        },
        {q, k, v},
        dy);
    return {d[0], d[1], d[2]};
  }
  DeltaNetInput gated_delta_net(
      const mx::array& dy,
      const DeltaNetInput& input,
      const DeltaNetWeights& weights,
      const DeltaNetShape& shape,
      std::span<const Segment> segments) override {
    check_whole_sequences("gated_delta_net", segments, input.z.shape(0));
    const Arrays d = pull_back(
        "gated_delta_net",
        [&](const Arrays& in) {
          return delta_net_whole(
              {in[0], in[1], in[2], in[3]}, weights, shape, segments);
        },
        {input.qkv, input.z, input.b, input.a},
        dy);
    return {d[0], d[1], d[2], d[3]};
  }
  LogitLoss cross_entropy(
      const mx::array& logits,
      std::span<const std::int32_t> labels,
      std::span<const float> weights) override {
    for (const std::int32_t label : labels) {
      check_range("cross_entropy", "label", label, 1, logits.shape(1));
    }
    const mx::array at = mx::expand_dims(ids_of(labels), 1);
    const mx::array by_row(
        weights.data(), mx::Shape{static_cast<int>(weights.size())});
    const auto losses_of = [&](const mx::array& x) {
      return mx::subtract(
          mx::logsumexp(x, -1), mx::squeeze(mx::take_along_axis(x, at, 1), 1));
    };
    const mx::array gradient =
        pull_back(
            "cross_entropy",
            [&](const Arrays& x) { return losses_of(x[0]); },
            {logits},
            by_row)
            .front();
    return evaluated_loss(
        "cross_entropy", losses_of(mx::astype(logits, mx::float32)), gradient);
  }
  LogitLoss kl_divergence(
      const mx::array& reference,
      const mx::array& logits,
      std::span<const float> weights) override {
    require_shape("kl_divergence", "logits", logits, reference.shape());
    require_shape(
        "kl_divergence",
        "reference",
        reference,
        {static_cast<int>(weights.size()), logits.shape(1)});
    const mx::array by_row(
        weights.data(), mx::Shape{static_cast<int>(weights.size())});
    const auto log_softmax = [](const mx::array& x) {
      return mx::subtract(x, mx::logsumexp(x, -1, true));
    };
    const mx::array log_p = log_softmax(mx::astype(reference, mx::float32));
    const auto losses_of = [&](const mx::array& x) {
      return mx::sum(
          mx::multiply(mx::exp(log_p), mx::subtract(log_p, log_softmax(x))),
          -1);
    };
    const mx::array gradient =
        pull_back(
            "kl_divergence",
            [&](const Arrays& x) { return losses_of(x[0]); },
            {logits},
            by_row)
            .front();
    return evaluated_loss(
        "kl_divergence", losses_of(mx::astype(logits, mx::float32)), gradient);
  }

 private:
  static LogitLoss evaluated_loss(
      const char* function,
      mx::array losses,
      const mx::array& gradient) {
    guarded(function, [&] { mx::eval({losses, gradient}); });
    const float* values = losses.data<float>();
    return {{values, values + losses.size()}, gradient};
  }
};

} // namespace

Gradients& gradients() {
  static MlxGradients all;
  return all;
}

} // namespace optiq::kernels::portable
