#pragma once

#include <span>
#include <utility>
#include <vector>

#include "optiq/kernels/cpu/operations.h"
#include "optiq/kernels/machine.h"
#include "optiq/kernels/quantize.h"
#include "optiq/kernels/turbo.h"

/** Short words of kernel tests for operations of the CPU device. */
namespace optiq::kernels {

using cpu::add_bias;
using cpu::append_and_attend;
using cpu::argmax;
using cpu::gated_delta_net;
using cpu::kl_divergence;
using cpu::log_sum_exp;
using cpu::rope;
using cpu::sigmoid_gate;
using cpu::softcap;

inline mx::array add(const mx::array& a, const mx::array& b) {
  return cpu_device().add(a, b);
}
inline Matrix dense(const mx::array& weight) {
  return cpu_device().dense(weight);
}
inline KvFormat make_kv_format(KvFormat format) {
  return cpu_device().kv_format(std::move(format));
}
inline mx::array embed(std::span<const std::int32_t> ids, const Matrix& w) {
  return cpu_device().embed(ids, w);
}
inline mx::array
rms_norm(const mx::array& x, const mx::array& weight, float eps) {
  return cpu_device().normalize(x, {.weight = weight, .eps = eps});
}
inline mx::array
layer_norm(const mx::array& x, const mx::array& weight, float eps) {
  return cpu_device().normalize(
      x, {.weight = weight, .eps = eps, .is_layer_norm = true});
}
inline mx::array swiglu(const mx::array& gate, const mx::array& up) {
  return cpu_device().glu(gate, up, Activation::Silu);
}
inline mx::array geglu(const mx::array& gate, const mx::array& up) {
  return cpu_device().glu(gate, up, Activation::GeluTanh);
}

inline std::vector<mx::array> matmul(
    const mx::array& x,
    std::span<const Matrix* const> weights,
    Compute compute,
    const Norm* norm = nullptr) {
  Product product{.projections = {}, .norm = norm, .compute = compute};
  for (const Matrix* weight : weights) {
    product.projections.push_back({.weight = weight, .updates = {}});
  }
  return cpu_device().multiply(x, product);
}
inline mx::array
matmul(const mx::array& x, const Matrix& weight, Compute compute) {
  const Matrix* const one[] = {&weight};
  return matmul(x, one, compute).front();
}
/** residual + x W^T. */
inline mx::array matmul_add(
    const mx::array& x,
    const Matrix& weight,
    const mx::array& residual,
    Compute compute) {
  return cpu_device()
      .multiply(
          x,
          {.projections = {{.weight = &weight, .updates = {}}},
           .residual = &residual,
           .compute = compute})
      .front();
}
/** activation(x G^T) * (x U^T). */
inline mx::array matmul_glu(
    const mx::array& x,
    const Matrix& gate,
    const Matrix& up,
    Activation activation,
    Compute compute,
    const Norm* norm = nullptr) {
  return cpu_device()
      .multiply(
          x,
          {.projections =
               {{.weight = &gate, .updates = {}},
                {.weight = &up, .updates = {}}},
           .norm = norm,
           .activation = activation,
           .compute = compute})
      .front();
}

} // namespace optiq::kernels
