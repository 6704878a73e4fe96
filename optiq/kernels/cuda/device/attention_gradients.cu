// Between the products of attention on the way back: heads that turn, and
// scores.
#include "optiq/kernels/cuda/device/common.cuh"
#include "optiq/kernels/cuda/gradient_arguments.h"

namespace optiq::kernels::cuda {

/** Grid: rows, heads. Blocks of threads read a head before they write it. */
extern "C" __global__ void turn_heads(const __grid_constant__ TurnHeads args) {
  begin_kernel();
  const int row = blockIdx.x;
  const long long at =
      (static_cast<long long>(row) * args.n_heads + blockIdx.y) * args.head_dim;
  const float* x = args.x + at;
  float* y = args.y + at;
  const float growth = args.growth != nullptr ? args.growth[row] : 1.f;
  for (int i = threadIdx.x; i < args.half; i += blockDim.x) {
    const int first = args.is_interleaved != 0 ? 2 * i : i;
    const int second = args.is_interleaved != 0 ? 2 * i + 1 : i + args.half;
    const float frequency =
        args.frequencies
            [static_cast<long long>(row) * args.frequencies_stride + i];
    float sine = 0.f;
    float cosine = 0.f;
    sincosf(
        static_cast<float>(args.positions[row]) * frequency, &sine, &cosine);
    sine *= args.direction;
    const float a = x[first];
    const float b = x[second];
    const float factor = args.scale * growth;
    y[first] = factor * fmaf(a, cosine, -b * sine);
    y[second] = factor * fmaf(a, sine, b * cosine);
  }
  for (int i = 2 * args.half + threadIdx.x; i < args.head_dim;
       i += blockDim.x) {
    y[i] = growth * x[i];
  }
}

/** Grid: rows, heads. */
extern "C" __global__ void score_gradient(
    const __grid_constant__ ScoreGradient args) {
  begin_kernel();
  const long long at =
      (static_cast<long long>(blockIdx.y) * args.rows + blockIdx.x) * args.keys;
  float* scores = args.scores + at;
  float* dscores = args.dscores + at;
  const int position = args.first_row + blockIdx.x;
  const int first = args.window == 0 || position < args.window
      ? 0
      : position - args.window + 1;
  const int begin = max(first - args.first_key, 0);
  const int end = min(position + 1 - args.first_key, args.keys);
  const auto score_at = [&](int i) {
    const float s = scores[i] * args.scale;
    return args.softcap > 0.f ? args.softcap * tanhf(s / args.softcap) : s;
  };
  float most = -INFINITY;
  for (int i = begin + threadIdx.x; i < end; i += blockDim.x) {
    most = fmaxf(most, score_at(i));
  }
  most = block_max(most);
  float sum = 0.f;
  float weighted = 0.f;
  for (int i = begin + threadIdx.x; i < end; i += blockDim.x) {
    const float e = expf(score_at(i) - most);
    sum += e;
    weighted = fmaf(e, dscores[i], weighted);
  }
  sum = block_sum(sum);
  const float mean = block_sum(weighted) / sum;
  for (int i = threadIdx.x; i < args.keys; i += blockDim.x) {
    float p = 0.f;
    float ds = 0.f;
    if (i >= begin && i < end) {
      const float s = score_at(i);
      p = expf(s - most) / sum;
      const float t = args.softcap > 0.f ? s / args.softcap : 0.f;
      ds = p * (dscores[i] - mean) * fmaf(-t, t, 1.f) * args.scale;
    }
    scores[i] = p;
    dscores[i] = ds;
  }
}

} // namespace optiq::kernels::cuda
