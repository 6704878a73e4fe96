#include "optiq/kernels/cpu/delta_net_checks.h"

#include "optiq/kernels/checks_impl.h"

namespace optiq::kernels::cpu {
namespace {

constexpr const char* kFunction = "gated_delta_net";

DeltaNetDims check_shape(const DeltaNetShape& s) {
  const bool valid = s.n_key_heads > 0 && s.n_value_heads > 0 &&
      s.n_value_heads % s.n_key_heads == 0 && s.key_dim > 0 &&
      s.value_dim > 0 && s.conv_kernel >= 2 &&
      s.conv_kernel <= static_cast<int>(kMaxConvKernel);
  if (!valid) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] shape: found {} key heads of {}, {} value heads of "
        "{}, conv kernel {}, expected positive sizes, value heads a multiple "
        "of key heads and a kernel of 2 to {}. Check the model's config.",
        kFunction,
        s.n_key_heads,
        s.key_dim,
        s.n_value_heads,
        s.value_dim,
        s.conv_kernel,
        kMaxConvKernel);
  }
  const auto size = [](int n) { return static_cast<std::size_t>(n); };
  return {
      .key_heads = size(s.n_key_heads),
      .value_heads = size(s.n_value_heads),
      .key_dim = size(s.key_dim),
      .value_dim = size(s.value_dim),
      .conv_kernel = size(s.conv_kernel)};
}

} // namespace

DeltaNetArrays check_delta_net(
    const DeltaNetInput& input,
    const DeltaNetWeights& weights,
    const DeltaNetShape& shape) {
  const DeltaNetDims dims = check_shape(shape);
  require_rank(kFunction, "qkv", input.qkv, 2);
  const int T = input.qkv.shape(0);
  const int Hv = shape.n_value_heads;
  const auto floats =
      [](const char* name, const mx::array& x, const mx::Shape& s) {
        return require_floats(kFunction, name, x, s);
      };
  return {
      dims,
      floats("qkv", input.qkv, {T, shape.qkv_dim()}),
      floats("z", input.z, {T, Hv * shape.value_dim}),
      floats("b", input.b, {T, Hv}),
      floats("a", input.a, {T, Hv}),
      floats("conv", weights.conv, {shape.qkv_dim(), shape.conv_kernel}),
      floats("a_log", weights.a_log, {Hv}),
      floats("dt_bias", weights.dt_bias, {Hv}),
      floats("norm", weights.norm, {shape.value_dim})};
}

} // namespace optiq::kernels::cpu
