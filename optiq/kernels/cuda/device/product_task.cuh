// Which part of a product a block of threads that goes through all of it has in
// turn.
#pragma once

#include "optiq/kernels/cuda/arguments.h"

namespace optiq::kernels::cuda {
namespace {

/** kRows rows of x and kTiles tiles of outputs: of one part, or gated, half of
 * them of the first part and the same ones of the second. Tasks that follow
 * each other share weights. */
template <int kTiles, int kRows>
struct RowTask {
  int row_block;
  int part = 0; // of the first tile
  int tile;

  __device__ __forceinline__ RowTask(const Multiply& args, int index) {
    const int row_blocks = (args.rows + kRows - 1) / kRows;
    row_block = index % row_blocks;
    const int block = index / row_blocks;
    int first = 0;
    if (!args.is_gated) {
#pragma unroll
      for (int i = 1; i < kMostParts; ++i) {
        if (i < args.n_parts && block >= args.parts[i].first_block) {
          part = i;
          first = args.parts[i].first_block;
        }
      }
    }
    tile = (block - first) * (args.is_gated ? kTiles / 2 : kTiles);
  }
  static __device__ __forceinline__ int count(const Multiply& args) {
    return args.n_blocks * ((args.rows + kRows - 1) / kRows);
  }
};

} // namespace
} // namespace optiq::kernels::cuda
