// Derivatives of what is done row by row, moves back, and losses of logits.
#include "optiq/kernels/cuda/device/log_sums.cuh"
#include "optiq/kernels/cuda/device/slopes.cuh"
#include "optiq/kernels/cuda/gradient_arguments.h"

namespace optiq::kernels::cuda {
namespace {

__device__ __forceinline__ long long thread_index() {
  return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
}

/** gelu(x) = x sigmoid(u), u = r x (1 + 0.044715 x^2), r = 2 sqrt(2 / pi). */
__device__ __forceinline__ Activated gelu_slope(float x) {
  constexpr float kRoot = 1.5957691216057308f;
  const float square = x * x;
  const float s = sigmoid(x * fmaf(square, 0.044715f * kRoot, kRoot));
  const float value = x * s;
  const float inner = fmaf(square, 3 * 0.044715f * kRoot, kRoot);
  return {value, fmaf(value * (1.f - s), inner, s)};
}

} // namespace

/** Grid: rows. With g = dy weight and r = 1 / rms(x), x centered before in a
 * LayerNorm: dx = r (g - x r^2 mean(g x)), less its mean in a LayerNorm. */
extern "C" __global__ void norm_gradient(
    const __grid_constant__ NormGradient args) {
  begin_kernel();
  const long long at = static_cast<long long>(blockIdx.x) * args.width;
  const float* dy = args.dy + at;
  const float* x = args.x + at;
  float* dx = args.dx + at;
  const auto width = static_cast<float>(args.width);
  float mean = 0.f;
  if (args.is_layer_norm != 0) {
    for (int i = threadIdx.x; i < args.width; i += blockDim.x) {
      mean += x[i];
    }
    mean = block_sum(mean) / width;
  }
  float squares = 0.f;
  float along = 0.f;
  float slopes = 0.f;
  for (int i = threadIdx.x; i < args.width; i += blockDim.x) {
    const float centered = x[i] - mean;
    const float g = dy[i] * args.weight[i];
    squares = fmaf(centered, centered, squares);
    along = fmaf(g, centered, along);
    slopes += g;
  }
  const float inverse = 1.f / sqrtf(block_sum(squares) / width + args.eps);
  along = block_sum(along) / width * inverse * inverse;
  // Centered x has no mean, so that of dx is that of g.
  slopes = args.is_layer_norm != 0 ? block_sum(slopes) / width : 0.f;
  for (int i = threadIdx.x; i < args.width; i += blockDim.x) {
    // Rounded as it was in the sum, so that a single column has no slope.
    const float g = __fmul_rn(dy[i], args.weight[i]) - slopes;
    dx[i] = inverse * fmaf(-(x[i] - mean), along, g);
  }
}

extern "C" __global__ void apply_backward(
    const __grid_constant__ ApplyBackward args) {
  begin_kernel();
  const long long i = thread_index();
  if (i >= args.n) {
    return;
  }
  const float dy = args.dy[i];
  const float a = args.a[i];
  if (args.what == Backward::Softcap) {
    const float t = a / args.factor;
    args.da[i] = dy * fmaf(-t, t, 1.f);
    return;
  }
  const float b = args.b[i];
  if (args.what == Backward::SigmoidGate) {
    const float s = sigmoid(b);
    args.da[i] = dy * s;
    args.db[i] = dy * s * a * (1.f - s);
    return;
  }
  const Activated activated =
      args.what == Backward::Silu ? silu_slope(a) : gelu_slope(a);
  args.da[i] = dy * b * activated.slope;
  args.db[i] = dy * activated.value;
}

/** Grid: rows, columns. */
extern "C" __global__ void spread(const __grid_constant__ Spread args) {
  begin_kernel();
  const long long row = blockIdx.x;
  const int column = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  if (column < args.width) {
    const long long to = args.rows != nullptr ? args.rows[row] : row;
    args.y[to * args.y_width + args.begin + column] =
        args.x[row * args.width + column];
  }
}

extern "C" __global__ void sum_squares(
    const __grid_constant__ SumSquares args) {
  begin_kernel();
  const long long i = thread_index();
  if (i >= args.n) {
    return;
  }
  const long long first = i * args.width;
  float sum = 0.f;
  for (int k = 0; k < args.width; ++k) {
    const float value =
        args.x[first + k] - (args.less != nullptr ? args.less[first + k] : 0.f);
    sum = fmaf(value, value, sum);
  }
  args.y[i] = sum;
}

/** Grid: rows. */
extern "C" __global__ void cross_entropy_gradient(
    const __grid_constant__ LogitLossRows args) {
  begin_kernel();
  const long long at = static_cast<long long>(blockIdx.x) * args.n;
  const float* x = args.x + at;
  const double lse = log_sum_exp_of(x, args.n);
  const int label = args.labels[blockIdx.x];
  const float weight = args.weights[blockIdx.x];
  if (threadIdx.x == 0) {
    args.losses[blockIdx.x] = lse - x[label];
  }
  const auto shift = static_cast<float>(lse);
  for (int i = threadIdx.x; i < args.n; i += blockDim.x) {
    const float p = expf(x[i] - shift);
    args.dx[at + i] = weight * (i == label ? p - 1.f : p);
  }
}

/** Grid: rows. */
extern "C" __global__ void kl_divergence_gradient(
    const __grid_constant__ LogitLossRows args) {
  begin_kernel();
  const long long at = static_cast<long long>(blockIdx.x) * args.n;
  const float* x = args.x + at;
  const float* reference = args.reference + at;
  const double reference_lse = log_sum_exp_of(reference, args.n);
  const double lse = log_sum_exp_of(x, args.n);
  const float weight = args.weights[blockIdx.x];
  double sum = 0;
  for (int i = threadIdx.x; i < args.n; i += blockDim.x) {
    const double r = reference[i];
    const double p = exp(r - reference_lse);
    // What the reference excludes adds nothing, whatever the other says.
    sum += p == 0 ? 0 : p * (r - x[i] - (reference_lse - lse));
    const float q = expf(x[i] - static_cast<float>(lse));
    args.dx[at + i] = weight * (q - static_cast<float>(p));
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    args.losses[blockIdx.x] = sum;
  }
}

} // namespace optiq::kernels::cuda
