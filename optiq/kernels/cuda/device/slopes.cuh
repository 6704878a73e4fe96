// The sigmoid, and what goes back through activations made of it.
#pragma once

#include "optiq/kernels/cuda/device/common.cuh"

namespace optiq::kernels::cuda {

__device__ __forceinline__ float sigmoid(float x) {
  return 1.f / (1.f + expf(-x));
}

/** An activation and its slope. */
struct Activated {
  float value;
  float slope;
};

__device__ __forceinline__ Activated silu_slope(float x) {
  const float s = sigmoid(x);
  const float value = x * s;
  return {value, fmaf(value, 1.f - s, s)};
}

} // namespace optiq::kernels::cuda
