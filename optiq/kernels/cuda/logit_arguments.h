#pragma once

/** What kernels are given that read rows of logits, as arguments.h has the
 * others: reductions.cu and logit_blocks.cu. Pointers are the card's, but for
 * results that lie where the host reads them. T = rows. */
namespace optiq::kernels::cuda {

struct Reduce {
  const float* x; // [T, n]
  const float* reference; // of a KL divergence
  const int* ids; // [T], of pick
  int n;
  int rows;
  double* wide; // [T]
  float* values; // [T]
};

struct Argmax {
  const float* x; // [T, n]
  int n;
  unsigned long long* largest; // [T]: zeros before and behind
  unsigned* arrived; // [T]: zeros before and behind
  int* indices; // [T]
};

/** Sums of blocks of 256 logits, as kernels/logit_blocks.h has them. */
struct SumBlocks {
  const float* x; // [T, n]
  int n;
  int blocks; // of a row
  const float* factors; // [T], of 2^t
  float* maxima; // [T, blocks], and so on
  double* masses;
  double* depths; // t in place of its logarithm
};

struct TakeBlocks {
  const float* x; // [T, n]
  int n;
  const int* ids; // [blocks taken, 2]: row, block
  float* taken; // [blocks taken, 256]
};

} // namespace optiq::kernels::cuda
