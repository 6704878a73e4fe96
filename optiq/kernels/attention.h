#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <mlx/array.h>

#include "optiq/kernels/block_store.h"

/** What attention does between its projections, as data. */
namespace optiq::kernels {

namespace mx = mlx::core;

/** The rows of one sequence in a flat batch, with its blocks of one layer. */
struct Segment {
  int first_row = 0; // in the flat batch
  int rows = 0;
  int start = 0; // absolute position of the first row
  /** Of K/V by absolute position / 64, up to start + rows tokens; None where
   * the window hides a whole block from every row. Of a recurrent layer its
   * one state. */
  std::span<const BlockId> blocks;
};

/** The absolute position of every row. */
std::vector<std::int32_t> positions_of(std::span<const Segment> segments);

/** How rotary position embedding turns the first `rotary_dim` channels of a
 * head (arXiv 2104.09864). */
struct Rope {
  std::vector<float> inverse_frequencies; // [rotary_dim / 2]
  /** Pairs (2i, 2i + 1); otherwise (i, i + rotary_dim / 2). */
  bool is_interleaved = false;
  float scale = 1.f; // of what is turned (YaRN, LongRoPE)

  /** Dynamic NTK: the token at position p >= positions turns by the base theta
   * * (factor * (p + 1) / positions - factor + 1)^(d / (d - 2)), d being
   * rotary_dim. So a token's rotation does not depend on what comes later, as
   * when the reference decodes token by token. */
  struct Growth {
    double theta = 0;
    double factor = 1.0;
    int positions = 0;
  };
  std::optional<Growth> growth;
};

/** theta^(-2i / rotary_dim) for i < rotary_dim / 2. */
std::vector<float> inverse_frequencies(double theta, int rotary_dim);

/** By which a token at `position` turns: those of the table, unless growth has
 * begun. */
std::vector<float> frequencies_at(const Rope& rope, int position);
/** Whether frequencies_at is the table at all these positions. */
bool uses_table(const Rope& rope, std::span<const std::int32_t> positions);

/** Queries that grow with their position, so that attention stays sharp over
 * long texts (Llama 4): q_p is multiplied by 1 + beta ln(1 + floor(p /
 * period)). */
struct QueryGrowth {
  double beta = 0;
  int period = 1;
};

float growth_at(const QueryGrowth& growth, int position);

/** How the product of a query and a key becomes a score: s = scale * q.k, then
 * softcap * tanh(s / softcap) where softcap is not 0. */
struct ScoreRule {
  float scale = 1.f;
  float softcap = 0.f;
};

/** From projected q, k and v to what is projected back. */
struct AttentionRule {
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  /** Every head has its q, then a gate; its output is multiplied by
   * sigmoid(gate) (Qwen3.5). */
  bool has_output_gate = false;
  /** Gains of RMS norms, f32: [head_dim] of every head, [n_heads * head_dim]
   * of all together. */
  std::optional<mx::array> q_norm;
  std::optional<mx::array> k_norm; // the same with n_kv_heads
  std::optional<mx::array> v_norm; // [head_dim]
  float norm_eps = 0.f;
  std::optional<Rope> rope; // none: attention knows no positions (NoPE)
  std::optional<QueryGrowth> query_growth;
  ScoreRule scores; // its scale is head_dim^-0.5 as a rule
};

} // namespace optiq::kernels
