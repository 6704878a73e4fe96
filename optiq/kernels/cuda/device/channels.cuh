// Channels of keys and values as operands of tensor cores (attention_tiles.cu).
#pragma once

#include "optiq/kernels/cuda/device/attention.cuh"

namespace optiq::kernels::cuda {

inline constexpr int kDense = 16; // "bits" of bfloat16

/** Eight consecutive channels of a token. */
template <int kBits>
struct Channels {
  std::uint32_t raw[kBits / 4];

  __device__ __forceinline__ void load(const char* token, int channel) {
    const char* from = token + channel * kBits / 8;
    if constexpr (kBits == 4) {
      raw[0] = __ldg(reinterpret_cast<const std::uint32_t*>(from));
    } else if constexpr (kBits == 8) {
      const uint2 v = __ldg(reinterpret_cast<const uint2*>(from));
      raw[0] = v.x;
      raw[1] = v.y;
    } else {
      const uint4 v = __ldg(reinterpret_cast<const uint4*>(from));
      raw[0] = v.x;
      raw[1] = v.y;
      raw[2] = v.z;
      raw[3] = v.w;
    }
  }
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kBits / 4; ++i) {
      raw[i] = 0;
    }
  }

  /** Two of them in bfloat16, pair 0 to 3: those that place_of says. */
  __device__ __forceinline__ std::uint32_t pair(int i) const {
    if constexpr (kBits == 4) {
      return bf16_codes<kBits>(raw[0] >> (4 * i) & 0x000f000fu);
    } else if constexpr (kBits == 8) {
      return bf16_codes<kBits>(raw[i / 2] >> (8 * (i % 2)) & 0x00ff00ffu);
    } else {
      return raw[i];
    }
  }
  /** Where channel i of eight stands in the order of pairs. */
  static __device__ __forceinline__ int place_of(int i) {
    if constexpr (kBits == 4) { // (0, 4), (1, 5), ...
      return i % 4 * 2 + i / 4;
    } else if constexpr (kBits == 8) { // (0, 2), (1, 3), (4, 6), (5, 7)
      return i / 4 * 4 + i % 2 * 2 + i % 4 / 2;
    } else {
      return i;
    }
  }
};

/** kCount (1, 2 or 4) consecutive channels of a token. */
template <int kBits, int kCount>
struct FewChannels {
  static constexpr int kWords = kBits * kCount > 32 ? 2 : 1;
  std::uint32_t raw[kWords];

  __device__ __forceinline__ void load(const char* token, int channel) {
    if constexpr (kWords == 2) {
      const uint2 v =
          __ldg(reinterpret_cast<const uint2*>(token) + channel / 4);
      raw[0] = v.x;
      raw[1] = v.y;
    } else {
      const int bit = channel * kBits;
      raw[0] =
          __ldg(reinterpret_cast<const std::uint32_t*>(token) + bit / 32) >>
          (bit % 32);
    }
  }
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      raw[i] = 0;
    }
  }
  /** Channel i as an integer, or its bfloat16. */
  __device__ __forceinline__ std::uint32_t at(int i) const {
    constexpr std::uint32_t kMask = (1u << kBits) - 1;
    return raw[i * kBits / 32] >> (i * kBits % 32) & kMask;
  }
  /** Channel i of two tokens in bfloat16. */
  static __device__ __forceinline__ std::uint32_t
  pair(const FewChannels& a, const FewChannels& b, int i) {
    if constexpr (kBits == kDense) {
      return __byte_perm(
          a.raw[i / 2], b.raw[i / 2], i % 2 == 0 ? 0x5410 : 0x7632);
    } else {
      return bf16_codes<kBits>(a.at(i) | b.at(i) << 16);
    }
  }
};

} // namespace optiq::kernels::cuda
