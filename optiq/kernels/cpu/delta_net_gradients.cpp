#include "optiq/kernels/cpu/delta_net_gradients.h"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/delta_net_gradients.cpp"
#include "hwy/foreach_target.h"
// foreach_target must come first.
#include "hwy/aligned_allocator.h"
#include "hwy/highway.h"

#include "optiq/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {
namespace {

/** f(i, n) for every vector of [0, size), of which the last has n lanes. */
template <class F>
HWY_INLINE void ForVectors(std::size_t size, const F& f) {
  const std::size_t lanes = hn::Lanes(F32());
  for (std::size_t i = 0; i < size; i += lanes) {
    f(i, std::min(lanes, size - i));
  }
}

/** S_t from S_(t-1): `memory` becomes m, `delta` d. */
void StateStep(
    const float* k,
    const float* v,
    const Gate& gate,
    const DeltaNetDims& dims,
    const float* before,
    float* after,
    float* memory,
    float* delta) {
  const F32 d;
  const std::size_t width = dims.value_dim;
  std::fill_n(memory, width, 0.0f);
  for (std::size_t i = 0; i < dims.key_dim; ++i) {
    ForVectors(width, [&](std::size_t j, std::size_t n) HWY_ATTR {
      const VF32 s = hn::LoadN(d, before + i * width + j, n);
      const VF32 m = hn::LoadN(d, memory + j, n);
      hn::StoreN(hn::MulAdd(hn::Set(d, k[i]), s, m), d, memory + j, n);
    });
  }
  ForVectors(width, [&](std::size_t j, std::size_t n) HWY_ATTR {
    const VF32 error = hn::NegMulAdd(
        hn::Set(d, gate.decay),
        hn::LoadN(d, memory + j, n),
        hn::LoadN(d, v + j, n));
    hn::StoreN(hn::Mul(error, hn::Set(d, gate.beta)), d, delta + j, n);
  });
  for (std::size_t i = 0; i < dims.key_dim; ++i) {
    ForVectors(width, [&](std::size_t j, std::size_t n) HWY_ATTR {
      const VF32 s = hn::Mul(
          hn::Set(d, gate.decay), hn::LoadN(d, before + i * width + j, n));
      hn::StoreN(
          hn::MulAdd(hn::Set(d, k[i]), hn::LoadN(d, delta + j, n), s),
          d,
          after + i * width + j,
          n);
    });
  }
}

/** What one token did, and what comes back of it. */
struct TokenGradient {
  const float* q;
  const float* k;
  const float* v;
  const float* dy;
  Gate gate;
  const float* before; // S_(t-1) [key_dim][value_dim]
  const float* memory; // m
  const float* delta; // d
  float* dstate; // D [key_dim][value_dim]
  float* ddelta; // [value_dim], scratch
  float* dq;
  float* dk;
  float* dv;
  Gate* dgate;
};

/** The first pass over D and S: D += q dy^T; dq, dd, D d into dk and
 * <D, S>, which is returned. */
float FirstPass(const TokenGradient& t, const DeltaNetDims& dims) {
  const F32 d;
  const std::size_t width = dims.value_dim;
  const float both = Dot(d, t.delta, t.dy, width);
  std::fill_n(t.ddelta, width, 0.0f);
  VF32 product = hn::Zero(d);
  for (std::size_t i = 0; i < dims.key_dim; ++i) {
    const float* s = t.before + i * width;
    float* row = t.dstate + i * width;
    VF32 to_q = hn::Zero(d);
    VF32 to_k = hn::Zero(d);
    ForVectors(width, [&](std::size_t j, std::size_t n) HWY_ATTR {
      const VF32 dy = hn::LoadN(d, t.dy + j, n);
      const VF32 state = hn::LoadN(d, s + j, n);
      const VF32 grown =
          hn::MulAdd(hn::Set(d, t.q[i]), dy, hn::LoadN(d, row + j, n));
      hn::StoreN(grown, d, row + j, n);
      hn::StoreN(
          hn::MulAdd(hn::Set(d, t.k[i]), grown, hn::LoadN(d, t.ddelta + j, n)),
          d,
          t.ddelta + j,
          n);
      to_q = hn::MulAdd(state, dy, to_q);
      to_k = hn::MulAdd(grown, hn::LoadN(d, t.delta + j, n), to_k);
      product = hn::MulAdd(grown, state, product);
    });
    t.dq[i] = t.gate.decay * hn::ReduceSum(d, to_q) + t.k[i] * both;
    t.dk[i] = hn::ReduceSum(d, to_k);
  }
  return hn::ReduceSum(d, product);
}

/** D <- g D + k dm^T and dk += S dm. */
void SecondPass(
    const TokenGradient& t,
    const DeltaNetDims& dims,
    const float* dmemory) {
  const F32 d;
  const std::size_t width = dims.value_dim;
  for (std::size_t i = 0; i < dims.key_dim; ++i) {
    float* row = t.dstate + i * width;
    VF32 to_k = hn::Zero(d);
    ForVectors(width, [&](std::size_t j, std::size_t n) HWY_ATTR {
      const VF32 dm = hn::LoadN(d, dmemory + j, n);
      to_k = hn::MulAdd(hn::LoadN(d, t.before + i * width + j, n), dm, to_k);
      const VF32 kept =
          hn::Mul(hn::Set(d, t.gate.decay), hn::LoadN(d, row + j, n));
      hn::StoreN(hn::MulAdd(hn::Set(d, t.k[i]), dm, kept), d, row + j, n);
    });
    t.dk[i] += hn::ReduceSum(d, to_k);
  }
}

void TokenStep(const TokenGradient& t, const DeltaNetDims& dims) {
  const F32 d;
  const std::size_t width = dims.value_dim;
  const float product = FirstPass(t, dims);
  const VF32 beta = hn::Set(d, t.gate.beta);
  const VF32 decay = hn::Set(d, t.gate.decay);
  VF32 to_beta = hn::Zero(d);
  VF32 to_decay = hn::Zero(d);
  ForVectors(width, [&](std::size_t j, std::size_t n) HWY_ATTR {
    const VF32 m = hn::LoadN(d, t.memory + j, n);
    const VF32 dd = hn::LoadN(d, t.ddelta + j, n);
    const VF32 error = hn::NegMulAdd(decay, m, hn::LoadN(d, t.v + j, n));
    const VF32 dv = hn::Mul(beta, dd);
    to_beta = hn::MulAdd(dd, error, to_beta);
    to_decay = hn::MulAdd(dv, m, to_decay);
    hn::StoreN(dv, d, t.dv + j, n);
    hn::StoreN(hn::Neg(hn::Mul(decay, dv)), d, t.ddelta + j, n);
  });
  t.dgate->beta = hn::ReduceSum(d, to_beta);
  t.dgate->decay = product - hn::ReduceSum(d, to_decay);
  SecondPass(t, dims, t.ddelta);
}

/** The rows of one head, and the memory that its backward needs. */
struct Walk {
  const HeadRecurrence& head;
  const DeltaNetDims& dims;
  const HeadRecurrenceGradient& to;
  float* kept; // [chunks][state]: S before each chunk
  float* states; // [kStateChunk + 1][state]
  float* memories; // [kStateChunk][value_dim]
  float* deltas; // [kStateChunk][value_dim]
  float* dstate; // [state]
  float* ddelta; // [value_dim]

  std::size_t state_size() const {
    return dims.key_dim * dims.value_dim;
  }
  std::size_t key_head() const {
    return head.head / (dims.value_heads / dims.key_heads);
  }
  const float* q(std::size_t t) const {
    return head.conv + t * dims.channels() + key_head() * dims.key_dim;
  }
  const float* k(std::size_t t) const {
    return q(t) + dims.key_heads * dims.key_dim;
  }
  std::size_t v_channel() const {
    return 2 * dims.key_heads * dims.key_dim + head.head * dims.value_dim;
  }
  const float* v(std::size_t t) const {
    return head.conv + t * dims.channels() + v_channel();
  }
  const Gate& gate(std::size_t t) const {
    return head.gates[t * dims.value_heads + head.head];
  }
};

/** Tokens [first, last) forward: from states[0] to states[last - first]. */
void Forward(const Walk& w, std::size_t first, std::size_t last) {
  for (std::size_t t = first; t < last; ++t) {
    const std::size_t i = t - first;
    StateStep(
        w.k(t),
        w.v(t),
        w.gate(t),
        w.dims,
        w.states + i * w.state_size(),
        w.states + (i + 1) * w.state_size(),
        w.memories + i * w.dims.value_dim,
        w.deltas + i * w.dims.value_dim);
  }
}

void Backward(const Walk& w, std::size_t first, std::size_t last) {
  const DeltaNetDims& dims = w.dims;
  for (std::size_t t = last; t-- > first;) {
    const std::size_t i = t - first;
    TokenStep(
        {.q = w.q(t),
         .k = w.k(t),
         .v = w.v(t),
         .dy =
             w.head.dy + (t * dims.value_heads + w.head.head) * dims.value_dim,
         .gate = w.gate(t),
         .before = w.states + i * w.state_size(),
         .memory = w.memories + i * dims.value_dim,
         .delta = w.deltas + i * dims.value_dim,
         .dstate = w.dstate,
         .ddelta = w.ddelta,
         .dq = w.to.dq + t * dims.key_dim,
         .dk = w.to.dk + t * dims.key_dim,
         .dv = w.to.dconv + t * dims.channels() + w.v_channel(),
         .dgate = w.to.dgates + t * dims.value_heads + w.head.head},
        dims);
  }
}

void RecurrenceGradient(
    const HeadRecurrence& head,
    const DeltaNetDims& dims,
    const HeadRecurrenceGradient& to,
    float* scratch) {
  const std::size_t state = dims.key_dim * dims.value_dim;
  const std::size_t chunks = (head.rows + kStateChunk - 1) / kStateChunk;
  Walk w{head, dims, to, scratch, nullptr, nullptr, nullptr, nullptr, nullptr};
  w.states = w.kept + chunks * state;
  w.memories = w.states + (kStateChunk + 1) * state;
  w.deltas = w.memories + kStateChunk * dims.value_dim;
  w.dstate = w.deltas + kStateChunk * dims.value_dim;
  w.ddelta = w.dstate + state;
  std::fill_n(w.states, state, 0.0f);
  const auto end_of = [&](std::size_t chunk) {
    return std::min(head.rows, (chunk + 1) * kStateChunk);
  };
  for (std::size_t chunk = 0; chunk < chunks; ++chunk) {
    std::copy_n(w.states, state, w.kept + chunk * state);
    if (chunk + 1 < chunks) {
      Forward(w, chunk * kStateChunk, end_of(chunk));
      std::copy_n(w.states + kStateChunk * state, state, w.states);
    }
  }
  std::fill_n(w.dstate, state, 0.0f);
  for (std::size_t chunk = chunks; chunk-- > 0;) {
    std::copy_n(w.kept + chunk * state, state, w.states);
    Forward(w, chunk * kStateChunk, end_of(chunk));
    Backward(w, chunk * kStateChunk, end_of(chunk));
  }
}

void ConvRows(
    const float* in,
    const float* weight,
    const DeltaNetDims& dims,
    std::size_t begin,
    std::size_t end,
    float* sums) {
  const std::size_t channels = dims.channels();
  const std::size_t kernel = dims.conv_kernel;
  for (std::size_t t = begin; t < end; ++t) {
    float* to = sums + t * channels;
    std::fill_n(to, channels, 0.0f);
    for (std::size_t j = kernel - std::min(kernel, t + 1); j < kernel; ++j) {
      const float* from = in + (t + j + 1 - kernel) * channels;
      for (std::size_t c = 0; c < channels; ++c) {
        to[c] += weight[c * kernel + j] * from[c];
      }
    }
  }
}

void ConvGradient(
    const float* dsums,
    const float* weight,
    const DeltaNetDims& dims,
    std::size_t rows,
    std::size_t begin,
    std::size_t end,
    float* din) {
  const std::size_t channels = dims.channels();
  const std::size_t kernel = dims.conv_kernel;
  for (std::size_t t = begin; t < end; ++t) {
    float* to = din + t * channels;
    std::fill_n(to, channels, 0.0f);
    // Tap j read this row for the output at t + kernel - 1 - j.
    for (std::size_t j = kernel; j-- > 0 && t + kernel - 1 - j < rows;) {
      const float* from = dsums + (t + kernel - 1 - j) * channels;
      for (std::size_t c = 0; c < channels; ++c) {
        to[c] += weight[c * kernel + j] * from[c];
      }
    }
  }
}

void GatedNormGradient(
    const float* z,
    const float* norm,
    float eps,
    const DeltaNetDims& dims,
    std::size_t rows,
    const float* y,
    float* dy,
    float* dz) {
  const F32 d;
  const std::size_t dim = dims.value_dim;
  for (std::size_t head = 0; head < rows * dims.value_heads; ++head) {
    const std::size_t at = head * dim;
    const float inverse = InverseRms(d, y + at, dim, eps);
    VF32 sum = hn::Zero(d);
    ForVectors(dim, [&](std::size_t i, std::size_t n) HWY_ATTR {
      const VF32 gate = hn::LoadN(d, z + at + i, n);
      const VF32 s = Sigmoid(d, gate);
      const VF32 silu = hn::Mul(gate, s);
      const VF32 slope = hn::MulAdd(silu, hn::Sub(hn::Set(d, 1.0f), s), s);
      const VF32 out = hn::LoadN(d, dy + at + i, n);
      const VF32 x = hn::LoadN(d, y + at + i, n);
      const VF32 w = hn::LoadN(d, norm + i, n);
      const VF32 normed = hn::Mul(hn::Mul(x, hn::Set(d, inverse)), w);
      hn::StoreN(hn::Mul(hn::Mul(out, normed), slope), d, dz + at + i, n);
      const VF32 g = hn::Mul(hn::Mul(out, silu), w);
      sum = hn::MulAdd(g, x, sum);
      hn::StoreN(g, d, dy + at + i, n);
    });
    const VF32 mean = hn::Set(
        d, hn::ReduceSum(d, sum) * inverse * inverse / static_cast<float>(dim));
    ForVectors(dim, [&](std::size_t i, std::size_t n) HWY_ATTR {
      const VF32 g = hn::NegMulAdd(
          hn::LoadN(d, y + at + i, n), mean, hn::LoadN(d, dy + at + i, n));
      hn::StoreN(hn::Mul(g, hn::Set(d, inverse)), d, dy + at + i, n);
    });
  }
}

/** Of x / sqrt(sum x^2 + 1e-6) * factor: dy becomes dx. */
void UnitGradient(const float* x, float factor, std::size_t dim, float* dy) {
  const F32 d;
  const float inverse = 1.0f / std::sqrt(Dot(d, x, x, dim) + 1e-6f);
  const VF32 along = hn::Set(d, Dot(d, x, dy, dim) * inverse * inverse);
  const VF32 scale = hn::Set(d, factor * inverse);
  ForVectors(dim, [&](std::size_t i, std::size_t n) HWY_ATTR {
    const VF32 across =
        hn::NegMulAdd(hn::LoadN(d, x + i, n), along, hn::LoadN(d, dy + i, n));
    hn::StoreN(hn::Mul(across, scale), d, dy + i, n);
  });
}

float SigmoidOf(float x) {
  return 1.0f / (1.0f + std::exp(-x));
}

/** The gates of one row. */
void GateGradient(
    const PreparedRows& r,
    const DeltaNetDims& dims,
    std::size_t t,
    float* db,
    float* da) {
  for (std::size_t h = 0; h < dims.value_heads; ++h) {
    const std::size_t i = t * dims.value_heads + h;
    const float x = r.a[i] + r.weights.dt_bias[h];
    const float rate = std::exp(r.weights.a_log[h]);
    const float softplus =
        std::max(x, 0.0f) + std::log1p(std::exp(-std::abs(x)));
    const float decay = std::exp(-rate * softplus);
    da[i] = -rate * decay * r.dgates[i].decay * SigmoidOf(x);
    const float beta = SigmoidOf(r.b[i]);
    db[i] = beta * (1.0f - beta) * r.dgates[i].beta;
  }
}

void PrepareGradient(
    const PreparedRows& r,
    const DeltaNetDims& dims,
    float* dconv,
    float* db,
    float* da) {
  const F32 d;
  const std::size_t channels = dims.channels();
  const std::size_t dim = dims.key_dim;
  const float q_scale = 1.0f / std::sqrt(static_cast<float>(dim));
  const auto active = hwy::AllocateAligned<float>(channels);
  for (std::size_t t = 0; t < r.rows; ++t) {
    const float* sums = r.sums + t * channels;
    float* to = dconv + t * channels;
    ForVectors(
        2 * dims.key_heads * dim, [&](std::size_t i, std::size_t n) HWY_ATTR {
          hn::StoreN(Silu(d, hn::LoadN(d, sums + i, n)), d, &active[i], n);
        });
    for (std::size_t h = 0; h < 2 * dims.key_heads; ++h) {
      UnitGradient(
          &active[h * dim],
          h < dims.key_heads ? q_scale : 1.0f,
          dim,
          to + h * dim);
    }
    ForVectors(channels, [&](std::size_t i, std::size_t n) HWY_ATTR {
      const VF32 x = hn::LoadN(d, sums + i, n);
      const VF32 s = Sigmoid(d, x);
      const VF32 slope =
          hn::MulAdd(hn::Mul(x, s), hn::Sub(hn::Set(d, 1.0f), s), s);
      hn::StoreN(hn::Mul(hn::LoadN(d, to + i, n), slope), d, to + i, n);
    });
    GateGradient(r, dims, t, db, da);
  }
}

} // namespace
} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels::cpu {

HWY_EXPORT(ConvRows);
HWY_EXPORT(ConvGradient);
HWY_EXPORT(RecurrenceGradient);
HWY_EXPORT(GatedNormGradient);
HWY_EXPORT(PrepareGradient);

void conv_rows(
    const float* in,
    const float* weight,
    const DeltaNetDims& dims,
    std::size_t begin,
    std::size_t end,
    float* sums) {
  HWY_DYNAMIC_DISPATCH(ConvRows)(in, weight, dims, begin, end, sums);
}

void conv_gradient(
    const float* dsums,
    const float* weight,
    const DeltaNetDims& dims,
    std::size_t rows,
    std::size_t begin,
    std::size_t end,
    float* din) {
  HWY_DYNAMIC_DISPATCH(ConvGradient)
  (dsums, weight, dims, rows, begin, end, din);
}

std::size_t recurrence_scratch(const DeltaNetDims& dims, std::size_t rows) {
  const std::size_t state = dims.key_dim * dims.value_dim;
  const std::size_t chunks = (rows + kStateChunk - 1) / kStateChunk;
  return (chunks + kStateChunk + 2) * state +
      (2 * kStateChunk + 1) * dims.value_dim;
}

void recurrence_gradient(
    const HeadRecurrence& head,
    const DeltaNetDims& dims,
    const HeadRecurrenceGradient& to,
    float* scratch) {
  HWY_DYNAMIC_DISPATCH(RecurrenceGradient)(head, dims, to, scratch);
}

void gated_norm_gradient(
    const float* z,
    const float* norm,
    float eps,
    const DeltaNetDims& dims,
    std::size_t rows,
    const float* y,
    float* dy,
    float* dz) {
  HWY_DYNAMIC_DISPATCH(GatedNormGradient)
  (z, norm, eps, dims, rows, y, dy, dz);
}

void prepare_gradient(
    const PreparedRows& rows,
    const DeltaNetDims& dims,
    float* dconv,
    float* db,
    float* da) {
  HWY_DYNAMIC_DISPATCH(PrepareGradient)(rows, dims, dconv, db, da);
}

} // namespace optiq::kernels::cpu
#endif
