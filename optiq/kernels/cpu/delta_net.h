#pragma once

#include <cstddef>

/**
 * Gated delta net (arXiv 2412.06464), per value head, S [Dk][Dv] float32:
 *
 *   S_t = g_t S_(t-1) + k_t d_t^T,  d_t = beta_t (v_t - g_t S_(t-1)^T k_t)
 *   y_t = S_t^T q_t = g_t S_(t-1)^T q_t + d_t (k_t . q_t)
 *
 * The second form of y reads S once for both products. Columns of S are
 * independent; each strip of them goes through all tokens of a sequence while
 * it sits in the cache. Prefill and decode are the same arithmetic.
 */
namespace optiq::kernels::cpu {

struct DeltaNetDims {
  std::size_t key_heads = 0;
  std::size_t value_heads = 0;
  std::size_t key_dim = 0;
  std::size_t value_dim = 0;
  std::size_t conv_kernel = 0;

  std::size_t channels() const {
    return 2 * key_heads * key_dim + value_heads * value_dim;
  }
};

inline constexpr std::size_t kMaxConvKernel = 8;
inline constexpr std::size_t kChannelStrip = 64;
inline constexpr std::size_t kStateStrip = 64;

/**
 * conv[t][c] = silu(sum_j weight[c][j] * in[t - kernel + 1 + j][c]) for the
 * channels [begin, end), at most kChannelStrip of them, and the last rows of
 * the input into `past` [kernel - 1][channels], which held the rows before.
 */
void conv_silu(
    const float* in,
    const float* weight,
    const DeltaNetDims& dims,
    std::size_t rows,
    std::size_t begin,
    std::size_t end,
    float* past,
    float* conv);

/** Per token and value head. */
struct Gate {
  float decay = 0.0f; // g
  float beta = 0.0f;
};

/** Constants of the gates, [value_heads]. */
struct GateWeights {
  const float* a_log = nullptr;
  const float* dt_bias = nullptr;
};

/**
 * Normalizes q and k of `rows` conv rows in place (q times Dk^-1/2), writes
 * k . q per key head to `dots` [rows][key_heads] and the gates [rows]
 * [value_heads].
 */
void prepare_rows(
    const float* b,
    const float* a,
    const GateWeights& weights,
    const DeltaNetDims& dims,
    std::size_t rows,
    float* conv,
    float* dots,
    Gate* gates);

/**
 * Takes the columns [begin, begin + width) of one value head's state through
 * `rows` tokens; writes y [rows][value_heads * value_dim].
 */
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
    float* y);

/** y = y rsqrt(mean y^2 + eps) norm * silu(z), per head of `rows` rows, in
 * place. */
void gated_norm(
    const float* z,
    const float* norm,
    float eps,
    const DeltaNetDims& dims,
    std::size_t rows,
    float* y);

} // namespace optiq::kernels::cpu
