#pragma once

#include <vector>

#include "optiq/kernels/kv_format.h"

namespace optiq::kernels {

/** Channels of one width of a packed side that keeps a token's codes together:
 * a side of b + 1/2 bits has two parts, and a side whose head_dim is no
 * multiple of the group has a short last group, continued to a group of MLX's
 * affine format. */
struct KvPart {
  int begin = 0;
  int channels = 0;
  int padded = 0; // with what fills its last group
  int bits = 0;
  int group = 0; // of a turbo side: of channels that fill words
};

/** The parts of a checked format's side of `bits`, which is not dense. */
std::vector<KvPart> kv_parts(const KvFormat& format, double bits);

} // namespace optiq::kernels
