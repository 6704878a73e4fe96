#pragma once

#include <cstddef>

/**
 * Causal attention of one query head over one whole sequence, backwards. With
 * s = scale q.k, capped or not, p = softmax(s) over what a row sees, and dp =
 * dy.v:
 *
 *   ds = p (dp - sum p dp) (1 - (s / cap)^2)
 *   dq_i = scale sum_j ds_ij k_j   dk_j = scale sum_i ds_ij q_i
 *   dv_j = sum_i p_ij dy_i
 *
 * Scores are made again for kQueryBlock rows at a time: never all of them.
 */
namespace optiq::kernels::cpu {

inline constexpr std::size_t kQueryBlock = 64;

/** Heads lie in rows at a stride: row t of q at q + t * q_stride. */
struct HeadGradient {
  std::size_t rows = 0;
  std::size_t dim = 0;
  std::size_t window = 0; // 0: a row sees all rows before it
  float scale = 1.f;
  float softcap = 0.f; // or none
  const float* q = nullptr;
  const float* dy = nullptr; // strides of q, as have y and dq
  std::size_t q_stride = 0;
  const float* k = nullptr;
  const float* v = nullptr;
  std::size_t kv_stride = 0;
  float* y = nullptr; // what attention gave; not made where null
  float* dq = nullptr;
  float* dk = nullptr; // [rows][dim], this head's share
  float* dv = nullptr;
};

/** Floats of scratch that a call needs. */
std::size_t head_gradient_scratch(std::size_t rows, std::size_t dim);

void head_gradient(const HeadGradient& head, float* scratch);

} // namespace optiq::kernels::cpu
