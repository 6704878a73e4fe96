#pragma once

#include <cstddef>

#include "optiq/kernels/cuda/arguments.h"

/** What the kernels of gradients are given, as arguments.h has the others: a
 * name with a d is the derivative of the loss for what bears the name. */
namespace optiq::kernels::cuda {

// --- products of matrices in floats (float_product.cu) -----------------------

/** Element (i, j) of a matrix: data[i row + j column]; of head h of several,
 * data[h / group batch + ...]. One of the strides is 1. */
struct Factor {
  const void* data;
  Number type;
  int is_aligned; // whether four numbers side by side can be read at once
  float factor; // of its elements
  long long row;
  long long column;
  long long batch;
  int group;
};

/** C = A B times a factor, or added to what C holds. */
struct FloatProduct {
  Factor a; // [rows, inner]
  Factor b; // [inner, columns]
  float* c; // [rows, columns], columns side by side
  long long c_row;
  long long c_batch;
  int rows;
  int columns;
  int inner;
  float factor;
  int accumulates;
};

inline constexpr unsigned kFloatProductThreads = 256;

// --- row by row (gradients.cu) -----------------------------------------------

/** Of x / rms(x) * weight, or of a LayerNorm. A block of threads a row. */
struct NormGradient {
  const float* dy; // [rows, width]
  const float* x;
  const float* weight; // [width]
  float eps;
  int is_layer_norm;
  int width;
  float* dx;
};

enum class Backward : int { Silu, GeluTanh, Softcap, SigmoidGate };

/** Of activation(a) b, of softcap's result a, and of a sigmoid(b). */
struct ApplyBackward {
  Backward what;
  const float* dy;
  const float* a;
  const float* b; // or null
  float factor; // the cap
  float* da;
  float* db; // or null
  long long n;
};

/** x [n, width] to rows and columns of y [*, y_width], which is zero before. */
struct Spread {
  const float* x;
  const int* rows; // [n], of y; null: the same
  int begin; // first column in y
  int width;
  int y_width;
  float* y;
};

/** y = sums of the squares of `width` numbers side by side, of x or x - less.
 */
struct SumSquares {
  const float* x;
  const float* less; // or null
  int width;
  float* y;
  long long n; // sums
};

/** Of weight -log softmax(x)[label], or of weight KL(softmax(reference) ||
 * softmax(x)). A block of threads a row. */
struct LogitLossRows {
  const float* x; // [T, n]
  const float* reference; // [T, n] or null
  const int* labels; // [T], without reference
  const float* weights; // [T]
  int n;
  double* losses; // [T], not weighted
  float* dx; // [T, n]
};

// --- attention (attention_gradients.cu) --------------------------------------

/** Heads [T, n_heads, head_dim] turned by their positions, or turned back, and
 * queries grown. */
struct TurnHeads {
  const float* x;
  float* y; // or x
  int n_heads;
  int head_dim;
  const int* positions; // [T]
  const float* frequencies; // [half], or [T, half]; null: nothing turns
  int half; // rotary_dim / 2
  int frequencies_stride; // 0: of all rows
  int is_interleaved;
  float scale; // of what is turned
  const float* growth; // [T] or null
  float direction; // -1: back
};

/** Products of queries and keys, and of dy and values, to p and dL/d products,
 * in place; zero where a row does not see. Grid: rows, heads. */
struct ScoreGradient {
  float* scores; // [n_heads, rows, keys]
  float* dscores;
  int rows;
  int keys;
  int first_row; // position of row 0
  int first_key; // position of key 0
  int window;
  float scale;
  float softcap; // or 0
};

// --- gated delta nets (delta_gradients.cu) -----------------------------------

/** Tokens whose states are there at once on the way back. */
inline constexpr int kGradientChunk = 16;

struct DeltaGradient {
  DeltaNet net; // its conv, dots, decay and beta are there
  const float* dy; // [T, Hv * Dv], of what the recurrence gave
  float* kept; // [segments][Hv][strips][chunks][Dk'][32], Dk' as computed
  float* states; // [segments][Hv][strips][kGradientChunk][Dk'][32]
  int chunks; // of the longest segment
  int strips; // of 32 columns
  float* dq; // [strips][T, Hv, Dk]: shares of strips and value heads
  float* dk;
  float* ddecay; // [strips][T, Hv]
  float* dbeta;
  float* dconv; // [T, channels]: first of what was prepared, then of sums
  float* dqkv; // [T, channels]
  float* db; // [T, Hv]
  float* da;
};

/** Of y / rms(y) * norm * silu(z): dy becomes dL/dy of the recurrence. Grid:
 * rows, value heads. */
struct DeltaGateGradient {
  const float* y; // [T, Hv * Dv], before norm and gate
  const float* z;
  const float* norm; // [Dv]
  float eps;
  int value_dim;
  const float* dout; // [T, Hv * Dv]
  float* dy;
  float* dz;
};

} // namespace optiq::kernels::cuda
