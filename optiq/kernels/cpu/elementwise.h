#pragma once

#include <cstddef>
#include <cstdint>

/** Elementwise ops and norms on row-major float32 buffers, on one thread. */
namespace optiq::kernels::cpu {

/** out[t] = x[t] * rsqrt(mean(x[t]^2) + eps) * weight. x, out [rows][dim]. */
void rms_norm(
    const float* x,
    const float* weight,
    float eps,
    std::size_t rows,
    std::size_t dim,
    float* out);

/** What rms_norm multiplies a row [n] by, besides the weight. */
float inverse_rms(const float* x, std::size_t n, float eps);

/** out[t] = (x[t] - mean) * rsqrt(variance + eps) * weight. */
void layer_norm(
    const float* x,
    const float* weight,
    float eps,
    std::size_t rows,
    std::size_t dim,
    float* out);

void add(const float* a, const float* b, std::size_t n, float* out);

/** silu(gate) * up. */
void swiglu(const float* gate, const float* up, std::size_t n, float* out);

/** gelu(gate) * up, gelu(x) = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715
 * x^3))). */
void geglu(const float* gate, const float* up, std::size_t n, float* out);

/** cap * tanh(x / cap). */
void softcap(const float* x, float cap, std::size_t n, float* out);

/** x * sigmoid(gate). */
void sigmoid_gate(const float* x, const float* gate, std::size_t n, float* out);

struct RopeShape {
  std::size_t n_heads = 0;
  std::size_t head_dim = 0;
  std::size_t half = 0; // rotary_dim / 2
  bool is_interleaved = false;
  bool is_inverse = false; // turns the other way
  float scale = 1.f;
};

/** Rotates pairs (i, i + half), or (2i, 2i + 1), of every head by position *
 * frequency_i and scales them; the rest of the head is copied. x, out
 * [rows][n_heads][head_dim]. */
void rope(
    const float* x,
    const std::int32_t* positions,
    const float* inverse_frequencies,
    std::size_t rows,
    const RopeShape& shape,
    float* out);

} // namespace optiq::kernels::cpu
