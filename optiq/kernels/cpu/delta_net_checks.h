#pragma once

#include <mlx/array.h>

#include "optiq/kernels/cpu/delta_net.h"
#include "optiq/kernels/delta_net.h"

namespace optiq::kernels::cpu {

/** What a delta net layer reads, evaluated and of the shapes of device.h. */
struct DeltaNetArrays {
  DeltaNetDims dims;
  mx::array qkv; // [T, qkv_dim]
  mx::array z; // [T, Hv * Dv]
  mx::array b; // [T, Hv]
  mx::array a; // [T, Hv]
  mx::array conv; // [qkv_dim, conv_kernel]
  mx::array a_log; // [Hv]
  mx::array dt_bias; // [Hv]
  mx::array norm; // [Dv]
};

/** Throws InvalidInput. */
DeltaNetArrays check_delta_net(
    const DeltaNetInput& input,
    const DeltaNetWeights& weights,
    const DeltaNetShape& shape);

} // namespace optiq::kernels::cpu
