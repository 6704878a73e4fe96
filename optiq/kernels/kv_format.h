#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <mlx/array.h>

#include "optiq/artifacts/kv_codec.h"
#include "optiq/kernels/matrix.h"

namespace optiq::kernels {

namespace mx = mlx::core;

inline constexpr int kKvBlockTokens = 64;
/** The largest head_dim of quantized K/V. */
inline constexpr int kMaxPackedHeadDim = 256;

using artifacts::KvCodec;
using artifacts::KvMethod;
using artifacts::KvRotation;

/** From the seed of a layer's keys to that of its values. */
inline constexpr std::uint64_t kKvValueSeedStep = 500;

/** How a device lays a block out; it derives from it. */
struct KvLayout {
  virtual ~KvLayout() = default;

  std::size_t block_bytes = 0;
};

/** How one layer's K and V are kept in its blocks (64 tokens of one layer of
 * one sequence): its shape and the coding. */
struct KvFormat {
  mx::Dtype dtype = mx::bfloat16; // of dense sides; or float32
  int n_kv_heads = 0;
  int head_dim = 0; // a multiple of 16 when packed, even in bfloat16
  int window = 0; // tokens a query sees, its own included; 0 = all before it

  KvCodec codec;
  Compute compute =
      Compute::Fast; // Exact: as if float32 met codes and bfloat16

  /** By Device::kv_format, of the device whose blocks they are. */
  std::shared_ptr<const KvLayout> layout;

  /** Throws InvalidInput without a layout. */
  std::size_t block_bytes() const;
};

/** Throws InvalidInput, or Unsupported for widths that no method has, with the
 * reason. */
void check_kv_format(const KvFormat& format);

} // namespace optiq::kernels
