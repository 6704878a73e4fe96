#include "optiq/kernels/cpu/delta_net.h"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/delta_net.cpp"
#include "hwy/foreach_target.h"
// foreach_target must come first.
#include "hwy/highway.h"

#include "optiq/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {

/** One output row of a strip: `taps` [kernel][kChannelStrip] times rows. */
HWY_INLINE void ConvRow(
    F32 d,
    const float* const* rows,
    const float* taps,
    std::size_t kernel,
    std::size_t width,
    float* out) {
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t i = 0; i < width; i += lanes) {
    const std::size_t n = std::min(lanes, width - i);
    VF32 sum = hn::Zero(d);
    for (std::size_t j = 0; j < kernel; ++j) {
      sum = hn::MulAdd(
          hn::LoadU(d, taps + j * kChannelStrip + i),
          hn::LoadN(d, rows[j] + i, n),
          sum);
    }
    hn::StoreN(Silu(d, sum), d, out + i, n);
  }
}

void ConvSilu(
    const float* in,
    const float* weight,
    const DeltaNetDims& dims,
    std::size_t rows,
    std::size_t begin,
    std::size_t end,
    float* past,
    float* conv) {
  if (rows == 0) {
    return;
  }
  const F32 d;
  const std::size_t kernel = dims.conv_kernel;
  const std::size_t channels = dims.channels();
  HWY_ALIGN float taps[kMaxConvKernel * kChannelStrip] = {};
  for (std::size_t c = begin; c < end; ++c) {
    for (std::size_t j = 0; j < kernel; ++j) {
      taps[j * kChannelStrip + c - begin] = weight[c * kernel + j];
    }
  }
  const std::size_t before = kernel - 1;
  // Row t - before of the sequence, counted from the oldest row of `past`.
  const auto row = [&](std::size_t t) {
    return (t < before ? past + t * channels : in + (t - before) * channels) +
        begin;
  };
  for (std::size_t t = 0; t < rows; ++t) {
    const float* window[kMaxConvKernel];
    for (std::size_t j = 0; j < kernel; ++j) {
      window[j] = row(t + j);
    }
    ConvRow(d, window, taps, kernel, end - begin, conv + t * channels + begin);
  }
  for (std::size_t j = 0; j < before; ++j) {
    const float* from = row(rows + j);
    std::copy(from, from + (end - begin), past + j * channels + begin);
  }
}

/** x * factor, in place. */
HWY_INLINE void Scale(F32 d, float factor, std::size_t n, float* x) {
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t i = 0; i < n; i += lanes) {
    const std::size_t m = std::min(lanes, n - i);
    hn::StoreN(
        hn::Mul(hn::LoadN(d, x + i, m), hn::Set(d, factor)), d, x + i, m);
  }
}

/** x / sqrt(sum x^2 + 1e-6) * factor, in place. */
HWY_INLINE void NormalizeHead(F32 d, float factor, std::size_t n, float* x) {
  Scale(d, factor / std::sqrt(Dot(d, x, x, n) + 1e-6f), n, x);
}

/** log(1 + exp(x)) without overflow. */
HWY_INLINE float Softplus(float x) {
  return std::max(x, 0.0f) + std::log1p(std::exp(-std::abs(x)));
}

void PrepareRows(
    const float* b,
    const float* a,
    const GateWeights& weights,
    const DeltaNetDims& dims,
    std::size_t rows,
    float* conv,
    float* dots,
    Gate* gates) {
  const F32 d;
  const std::size_t dim = dims.key_dim;
  const float q_scale = 1.0f / std::sqrt(static_cast<float>(dim));
  for (std::size_t t = 0; t < rows; ++t) {
    float* q = conv + t * dims.channels();
    float* k = q + dims.key_heads * dim;
    for (std::size_t h = 0; h < dims.key_heads; ++h, q += dim, k += dim) {
      NormalizeHead(d, q_scale, dim, q);
      NormalizeHead(d, 1.0f, dim, k);
      dots[t * dims.key_heads + h] = Dot(d, q, k, dim);
    }
    for (std::size_t h = 0; h < dims.value_heads; ++h) {
      const std::size_t i = t * dims.value_heads + h;
      const float step = Softplus(a[i] + weights.dt_bias[h]);
      gates[i].decay = std::exp(-std::exp(weights.a_log[h]) * step);
      gates[i].beta = 1.0f / (1.0f + std::exp(-b[i]));
    }
  }
}

/** What one token brings to one value head. */
struct Token {
  const float* q;
  const float* k;
  const float* v; // of the strip
  float dot; // k . q
  Gate gate;
};

/** V vectors of columns through one token; `last` lanes of the only vector
 * count when kPartial. */
template <std::size_t V, bool kPartial>
HWY_INLINE void Step(
    const Token& token,
    std::size_t key_dim,
    std::size_t stride,
    std::size_t last,
    float* HWY_RESTRICT state,
    float* HWY_RESTRICT y) {
  static_assert(!kPartial || V == 1);
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  const auto load = [&](const float* p) HWY_ATTR {
    if constexpr (kPartial) {
      return hn::LoadN(d, p, last);
    } else {
      return hn::LoadU(d, p);
    }
  };
  const auto store = [&](VF32 x, float* p) HWY_ATTR {
    if constexpr (kPartial) {
      hn::StoreN(x, d, p, last);
    } else {
      hn::StoreU(x, d, p);
    }
  };

  VF32 memory[V];
  VF32 out[V];
  for (std::size_t v = 0; v < V; ++v) {
    memory[v] = hn::Zero(d);
    out[v] = hn::Zero(d);
  }
  for (std::size_t i = 0; i < key_dim; ++i) {
    const VF32 k = hn::Set(d, token.k[i]);
    const VF32 q = hn::Set(d, token.q[i]);
    for (std::size_t v = 0; v < V; ++v) {
      const VF32 s = load(state + i * stride + v * lanes);
      memory[v] = hn::MulAdd(k, s, memory[v]);
      out[v] = hn::MulAdd(q, s, out[v]);
    }
  }

  const VF32 decay = hn::Set(d, token.gate.decay);
  VF32 delta[V];
  for (std::size_t v = 0; v < V; ++v) {
    const VF32 error =
        hn::NegMulAdd(decay, memory[v], load(token.v + v * lanes));
    delta[v] = hn::Mul(hn::Set(d, token.gate.beta), error);
    store(
        hn::MulAdd(hn::Set(d, token.dot), delta[v], hn::Mul(decay, out[v])),
        y + v * lanes);
  }
  for (std::size_t i = 0; i < key_dim; ++i) {
    const VF32 k = hn::Set(d, token.k[i]);
    for (std::size_t v = 0; v < V; ++v) {
      float* s = state + i * stride + v * lanes;
      store(hn::MulAdd(k, delta[v], hn::Mul(decay, load(s))), s);
    }
  }
}

void DeltaStrip(
    const float* conv,
    const float* dots,
    const Gate* gates,
    const DeltaNetDims& dims,
    std::size_t rows,
    std::size_t head,
    std::size_t begin,
    std::size_t width,
    float* state,
    float* y) {
  const std::size_t lanes = hn::Lanes(F32());
  const std::size_t key_dim = dims.key_dim;
  const std::size_t key_head = head / (dims.value_heads / dims.key_heads);
  const std::size_t stride = dims.value_dim;
  state += head * key_dim * stride + begin;
  y += head * stride + begin;
  for (std::size_t t = 0; t < rows; ++t) {
    const float* row = conv + t * dims.channels();
    Token token{
        .q = row + key_head * key_dim,
        .k = row + (dims.key_heads + key_head) * key_dim,
        .v = row + 2 * dims.key_heads * key_dim + head * stride + begin,
        .dot = dots[t * dims.key_heads + key_head],
        .gate = gates[t * dims.value_heads + head]};
    float* out = y + t * dims.value_heads * stride;
    std::size_t at = 0;
    for (; at + 4 * lanes <= width; at += 4 * lanes, token.v += 4 * lanes) {
      Step<4, false>(token, key_dim, stride, lanes, state + at, out + at);
    }
    for (; at + lanes <= width; at += lanes, token.v += lanes) {
      Step<1, false>(token, key_dim, stride, lanes, state + at, out + at);
    }
    if (at < width) {
      Step<1, true>(token, key_dim, stride, width - at, state + at, out + at);
    }
  }
}

void GatedNorm(
    const float* z,
    const float* norm,
    float eps,
    const DeltaNetDims& dims,
    std::size_t rows,
    float* y) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  const std::size_t dim = dims.value_dim;
  for (std::size_t head = 0; head < rows * dims.value_heads; ++head) {
    const float mean = Dot(d, y, y, dim) / static_cast<float>(dim);
    const VF32 inverse = hn::Set(d, 1.0f / std::sqrt(mean + eps));
    for (std::size_t i = 0; i < dim; i += lanes) {
      const std::size_t n = std::min(lanes, dim - i);
      const VF32 normed = hn::Mul(
          hn::Mul(hn::LoadN(d, y + i, n), inverse), hn::LoadN(d, norm + i, n));
      hn::StoreN(hn::Mul(normed, Silu(d, hn::LoadN(d, z + i, n))), d, y + i, n);
    }
    y += dim;
    z += dim;
  }
}

} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels::cpu {

HWY_EXPORT(ConvSilu);
HWY_EXPORT(PrepareRows);
HWY_EXPORT(DeltaStrip);
HWY_EXPORT(GatedNorm);

void conv_silu(
    const float* in,
    const float* weight,
    const DeltaNetDims& dims,
    std::size_t rows,
    std::size_t begin,
    std::size_t end,
    float* past,
    float* conv) {
  HWY_DYNAMIC_DISPATCH(ConvSilu)
  (in, weight, dims, rows, begin, end, past, conv);
}

void prepare_rows(
    const float* b,
    const float* a,
    const GateWeights& weights,
    const DeltaNetDims& dims,
    std::size_t rows,
    float* conv,
    float* dots,
    Gate* gates) {
  HWY_DYNAMIC_DISPATCH(PrepareRows)
  (b, a, weights, dims, rows, conv, dots, gates);
}

void delta_strip(
    const float* conv,
    const float* dots,
    const Gate* gates,
    const DeltaNetDims& dims,
    std::size_t rows,
    std::size_t head,
    std::size_t begin,
    std::size_t width,
    float* state,
    float* y) {
  HWY_DYNAMIC_DISPATCH(DeltaStrip)
  (conv, dots, gates, dims, rows, head, begin, width, state, y);
}

void gated_norm(
    const float* z,
    const float* norm,
    float eps,
    const DeltaNetDims& dims,
    std::size_t rows,
    float* y) {
  HWY_DYNAMIC_DISPATCH(GatedNorm)(z, norm, eps, dims, rows, y);
}

} // namespace optiq::kernels::cpu
#endif
