#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "optiq/kernels/cpu/kv_format.h"
#include "optiq/kernels/turbo.h"

/** Reads blocks one value at a time, as cpu/kv_layout.h words it. */
namespace optiq::testing {

using kernels::cpu::KvCode;
using kernels::cpu::KvSide;

/** Bits [i * width ..] of a plane: byte `input % 4` of the lane's cell. */
inline unsigned plane_bits(
    const std::uint8_t* plane,
    unsigned width,
    std::size_t lane,
    std::size_t input) {
  const std::size_t quad = input / 4;
  const std::size_t per_vector = 8 / width;
  const std::uint8_t byte =
      plane[quad / per_vector * 64 + lane * 4 + input % 4];
  return byte >> (width * (quad % per_vector)) & ((1u << width) - 1);
}

inline unsigned code_in_chunk(
    const std::uint8_t* chunk,
    unsigned bits,
    std::size_t lane,
    std::size_t input) {
  const unsigned low = bits == 3 ? 2 : bits == 5 || bits == 6 ? 4 : bits;
  unsigned code = plane_bits(chunk, low, lane, input);
  if (bits > low) {
    code |= plane_bits(chunk + low * 64, bits - low, lane, input) << low;
  }
  return code;
}

inline unsigned
key_code(const KvSide& side, const std::byte* keys, int token, int channel) {
  std::size_t row_bytes = 0; // of a panel
  std::size_t before = 0;
  for (std::size_t at = 0; at < side.dims; at += 32) {
    const std::size_t bytes = side.bits_of(at) * 64;
    before += static_cast<int>(at) + 32 <= channel ? bytes : 0;
    row_bytes += bytes;
  }
  const auto* codes = reinterpret_cast<const std::uint8_t*>(keys);
  return code_in_chunk(
      codes + token / 16 * row_bytes + before,
      static_cast<unsigned>(side.bits_of(channel)),
      token % 16,
      channel % 32);
}

inline unsigned value_code(
    const KvSide& side,
    const std::byte* values,
    int token,
    int channel) {
  std::size_t before = 0;
  for (int at = 0; at + 16 <= channel; at += 16) {
    before += side.bits_of(at) * 128;
  }
  const auto bits = static_cast<unsigned>(side.bits_of(channel));
  const auto* codes = reinterpret_cast<const std::uint8_t*>(values);
  return code_in_chunk(
      codes + before + token / 32 * bits * 64, bits, channel % 16, token % 32);
}

inline double half_at(const std::byte* params, std::size_t i, bool bf16) {
  std::uint16_t half;
  std::memcpy(&half, params + 2 * i, 2);
  if (bf16) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(half) << 16);
  }
  const int exponent = half >> 10 & 31;
  const double fraction = half & 1023;
  if (exponent == 31) {
    return fraction == 0 ? INFINITY : NAN;
  }
  return exponent == 0 ? std::ldexp(fraction, -24)
                       : std::ldexp(1024 + fraction, exponent - 25);
}

/** What a side holds at a token of its block, in double; of turbo before it is
 * rotated back. */
inline double held(
    const KvSide& side,
    bool is_key,
    const std::byte* block,
    int token,
    int channel) {
  const auto dim = static_cast<int>(side.head_dim);
  switch (side.code) {
    case KvCode::Float32:
      return reinterpret_cast<const float*>(
          block)[is_key ? channel * 64 + token : token * dim + channel];
    case KvCode::BFloat16:
      return half_at(
          block,
          is_key ? (channel / 2 * 64 + token) * 2 + channel % 2
                 : (token / 2 * dim + channel) * 2 + token % 2,
          true);
    default:
      break;
  }
  const std::byte* params = block + side.codes_bytes();
  const unsigned code = is_key ? key_code(side, block, token, channel)
                               : value_code(side, block, token, channel);
  if (side.code == KvCode::Affine) {
    const std::size_t group = channel / side.group * 128;
    return code * half_at(params, group + token, true) +
        half_at(params, group + 64 + token, true);
  }
  return side.table_of(channel).centroids[code] *
      half_at(params, token, false) / std::sqrt(dim);
}

} // namespace optiq::testing
