// Products of up to 16 rows: multiply_*_own of one, which blocks of threads
// prepare for themselves, multiply_*_8 and multiply_*_16.
#include "optiq/kernels/cuda/device/product_few.cuh"

namespace optiq::kernels::cuda {
#define OPTIQ_MULTIPLY(BITS, EXACT, NAME)                            \
  extern "C" __global__ void __launch_bounds__(kOwnThreads<BITS>, 1) \
      multiply_##NAME##_own(const __grid_constant__ Multiply args) { \
    multiply_few<BITS, EXACT, 1, true>(args);                        \
  }                                                                  \
  extern "C" __global__ void __launch_bounds__(kFewThreads, 1)       \
      multiply_##NAME##_8(const __grid_constant__ Multiply args) {   \
    multiply_few<BITS, EXACT, 1, false>(args);                       \
  }                                                                  \
  extern "C" __global__ void __launch_bounds__(kFewThreads, 1)       \
      multiply_##NAME##_16(const __grid_constant__ Multiply args) {  \
    multiply_few<BITS, EXACT, 2, false>(args);                       \
  }

OPTIQ_FOR_WEIGHTS(OPTIQ_MULTIPLY)

} // namespace optiq::kernels::cuda
