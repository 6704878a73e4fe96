#include "optiq/kernels/layer_checks.h"

#include "optiq/base/error.h"
#include "optiq/kernels/shape_checks_impl.h"

namespace optiq::kernels {

void check_attention_shapes(
    const char* function,
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionRule& rule,
    const KvFormat& format) {
  const bool fits = rule.head_dim == format.head_dim &&
      rule.n_kv_heads == format.n_kv_heads && rule.n_heads > 0 &&
      rule.n_heads % format.n_kv_heads == 0 && rule.scores.softcap >= 0.f;
  if (!fits) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] rule: found {} heads of {} on {} kv heads with a softcap of {}, "
        "expected a multiple of the format's {} kv heads of {} and a softcap "
        "of 0 (none) or more. Pass the layer's.",
        function,
        rule.n_heads,
        rule.head_dim,
        rule.n_kv_heads,
        rule.scores.softcap,
        format.n_kv_heads,
        format.head_dim);
  }
  const int rows = q.ndim() == 0 ? 0 : q.shape(0);
  const int kv_rows = k.size() == 0 && v.size() == 0 ? 0 : rows;
  const int width = rule.n_heads * rule.head_dim;
  const int kv_width = rule.n_kv_heads * rule.head_dim;
  require_shape(
      function, "q", q, {rows, rule.has_output_gate ? 2 * width : width});
  require_shape(function, "k", k, {kv_rows, kv_width});
  require_shape(function, "v", v, {kv_rows, kv_width});
}

void check_delta_net_shapes(
    const char* function,
    const DeltaNetInput& input,
    const DeltaNetWeights& weights,
    const DeltaNetShape& shape) {
  const bool valid = shape.n_key_heads > 0 && shape.n_value_heads > 0 &&
      shape.n_value_heads % shape.n_key_heads == 0 && shape.key_dim > 0 &&
      shape.value_dim > 0 && shape.conv_kernel >= 2;
  if (!valid) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] shape: found {} key heads of {}, {} value heads of {}, conv "
        "kernel {}, expected positive sizes, value heads a multiple of key "
        "heads and a kernel of 2 or more. Check the model's config.",
        function,
        shape.n_key_heads,
        shape.key_dim,
        shape.n_value_heads,
        shape.value_dim,
        shape.conv_kernel);
  }
  const int T = input.qkv.ndim() == 0 ? 0 : input.qkv.shape(0);
  const int Hv = shape.n_value_heads;
  require_shape(function, "qkv", input.qkv, {T, shape.qkv_dim()});
  require_shape(function, "z", input.z, {T, Hv * shape.value_dim});
  require_shape(function, "b", input.b, {T, Hv});
  require_shape(function, "a", input.a, {T, Hv});
  require_shape(
      function, "conv", weights.conv, {shape.qkv_dim(), shape.conv_kernel});
  require_shape(function, "a_log", weights.a_log, {Hv});
  require_shape(function, "dt_bias", weights.dt_bias, {Hv});
  require_shape(function, "norm", weights.norm, {shape.value_dim});
}

} // namespace optiq::kernels
