// Codes of keys and values as float16 operands of tensor cores
// (attention_decode.cu). They come in fours: pair n of two fours is code n of
// the one and of the other, exact integers, or centroids of turbo.
#pragma once

#include "optiq/kernels/cuda/decode_layout.h"
#include "optiq/kernels/cuda/device/common.cuh"

namespace optiq::kernels::cuda {

/** 2^exponent in float16, twice. */
__device__ constexpr std::uint32_t half_power(int exponent) {
  return static_cast<std::uint32_t>(15 + exponent) * 0x04000400u;
}

/** A power of two. */
__device__ constexpr float power(int exponent) {
  float y = 1.f;
  for (int i = 0; i < exponent; ++i) {
    y *= 2.f;
  }
  for (int i = 0; i > exponent; --i) {
    y /= 2.f;
  }
  return y;
}

/** Bytes of a and b, a hex digit of `which` below 8 each; __byte_perm would
 * make sure of that. */
__device__ __forceinline__ std::uint32_t
take_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t which) {
  std::uint32_t y;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(b), "r"(which));
  return y;
}

/** Eight consecutive codes of a token: two fours, of up to 4 bits in the halves
 * of a word, of more in two words. */
template <int kBits>
struct EightCodes {
  static constexpr bool kIsOneWord = kBits <= 4;
  std::uint32_t words[kIsOneWord ? 1 : 2];

  /** Those at 8 * index of the codes that begin at `from`, a whole word. */
  __device__ __forceinline__ void load(const char* from, int index) {
    if constexpr (kBits == 4) {
      words[0] = reinterpret_cast<const std::uint32_t*>(from)[index];
    } else if constexpr (kBits == 8) {
      const uint2 v = reinterpret_cast<const uint2*>(from)[index];
      words[0] = v.x;
      words[1] = v.y;
    } else if constexpr (kBits == 2) {
      const std::uint32_t v =
          reinterpret_cast<const std::uint16_t*>(from)[index];
      words[0] = __byte_perm(v, 0, 0x4140);
    } else {
      const int byte = kBits * index;
      const auto* at = reinterpret_cast<const std::uint32_t*>(from) + byte / 4;
      const int shift = byte % 4 * 8;
      const std::uint32_t last = at[1];
      const std::uint32_t low = __funnelshift_r(at[0], last, shift);
      if constexpr (kIsOneWord) {
        words[0] = (low & 0xfffu) | (low << 4 & 0x0fff0000u);
      } else {
        words[0] = low;
        words[1] = __funnelshift_r(low, last >> shift, 4 * kBits);
      }
    }
  }
};

/** Codes of MLX's affine format: 1024 + c 2^kPlace[n], with the code in the
 * lowest bits of a float16 or where it stands. What 1024 adds is known
 * beforehand. */
template <int bits>
struct AffineCodes {
  static constexpr int kBits = bits;
  static constexpr bool kIsTurbo = false;
  static constexpr std::uint32_t kMask = (1u << kBits) - 1;
  static constexpr std::uint32_t kMagic = 0x64006400u; // 1024, twice

  __device__ __forceinline__ explicit AffineCodes(const KvSide&) {}

  /** Of a word with a four in each half. */
  __device__ __forceinline__ void pairs(
      std::uint32_t both,
      std::uint32_t (&to)[4]) const {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const int place = code_place(kBits, n);
      const int shift = kBits * n - place;
      to[n] = and_or(both >> shift, (kMask * 0x10001u) << place, kMagic);
    }
  }
  /** Of two words with a four each. */
  __device__ __forceinline__ void
  pairs(std::uint32_t a, std::uint32_t b, std::uint32_t (&to)[4]) const {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const std::uint32_t both = kBits == 8
          ? __byte_perm(a, b, n * 0x0011 + (4 + n) * 0x1100)
          : __byte_perm(a >> (kBits * n), b >> (kBits * n), 0x5410);
      to[n] = and_or(both, kMask * 0x10001u, kMagic);
    }
  }
};

/** Centroids of turbo's codes, in float16: looked up byte by byte. Those of 4
 * bits are eight and their mirror image. */
template <int bits>
struct TurboCodes {
  static constexpr int kBits = bits;
  static constexpr bool kIsTurbo = true;
  static_assert(kBits <= 4);
  std::uint32_t low[2]; // bytes of eight centroids
  std::uint32_t high[2];

  __device__ __forceinline__ explicit TurboCodes(const KvSide& side) {
    low[0] = side.parts[0].half_bytes[0];
    low[1] = side.parts[0].half_bytes[1];
    high[0] = side.parts[0].half_bytes[2];
    high[1] = side.parts[0].half_bytes[3];
  }

  __device__ __forceinline__ void pairs(
      std::uint32_t both,
      std::uint32_t (&to)[4]) const {
    std::uint32_t index; // a hex digit each
    std::uint32_t is_mirrored = 0;
    if constexpr (kBits == 4) {
      is_mirrored = ~both & 0x88888888u;
      index = (both ^ (is_mirrored - (is_mirrored >> 3))) & 0x77777777u;
    } else if constexpr (kBits == 3) {
      index = (both & 0x00070007u) | (both << 1 & 0x00700070u) |
          (both << 2 & 0x07000700u) | (both << 3 & 0x70007000u);
    } else {
      index = (both | both << 4) & 0x0f0f0f0fu;
      index = (index | index << 2) & 0x33333333u;
    }
    std::uint32_t fours[2][2]; // of each half two pairs of neighbours
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::uint32_t at = half == 0 ? index : index >> 16;
      const std::uint32_t l = take_bytes(low[0], low[1], at);
      std::uint32_t h = take_bytes(high[0], high[1], at);
      if constexpr (kBits == 4) {
        const std::uint32_t signs = __byte_perm(
            is_mirrored << 4, is_mirrored, half == 0 ? 0x5140 : 0x7362);
        h ^= signs & 0x80808080u;
      }
      fours[half][0] = __byte_perm(l, h, 0x5140);
      fours[half][1] = __byte_perm(l, h, 0x7362);
    }
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      to[n] = __byte_perm(
          fours[0][n / 2], fours[1][n / 2], n % 2 == 0 ? 0x5410 : 0x7632);
    }
  }
};

/** Codes n and n + 4 of a token. */
template <class Codes>
__device__ __forceinline__ void pairs_of_token(
    const Codes& codes,
    const EightCodes<Codes::kBits>& x,
    std::uint32_t (&to)[4]) {
  if constexpr (EightCodes<Codes::kBits>::kIsOneWord) {
    codes.pairs(x.words[0], to);
  } else {
    codes.pairs(x.words[0], x.words[1], to);
  }
}

/** Codes n, and n + 4, of two tokens. */
template <class Codes>
__device__ __forceinline__ void pairs_of_tokens(
    const Codes& codes,
    const EightCodes<Codes::kBits>& a,
    const EightCodes<Codes::kBits>& b,
    std::uint32_t (&first)[4],
    std::uint32_t (&second)[4]) {
  if constexpr (EightCodes<Codes::kBits>::kIsOneWord) {
    codes.pairs(__byte_perm(a.words[0], b.words[0], 0x5410), first);
    codes.pairs(__byte_perm(a.words[0], b.words[0], 0x7632), second);
  } else {
    codes.pairs(a.words[0], b.words[0], first);
    codes.pairs(a.words[1], b.words[1], second);
  }
}

/** Calls f with the codes of a side that this kernel takes. */
template <class F>
__device__ __forceinline__ void with_codes(const KvSide& side, const F& f) {
  const int bits = side.parts[0].bits;
  if (side.code == KvCode::Turbo) {
    switch (bits) {
      case 2:
        return f(TurboCodes<2>(side));
      case 3:
        return f(TurboCodes<3>(side));
      default:
        return f(TurboCodes<4>(side));
    }
  }
  switch (bits) {
    case 2:
      return f(AffineCodes<2>(side));
    case 3:
      return f(AffineCodes<3>(side));
    case 4:
      return f(AffineCodes<4>(side));
    case 5:
      return f(AffineCodes<5>(side));
    case 6:
      return f(AffineCodes<6>(side));
    default:
      return f(AffineCodes<8>(side));
  }
}

} // namespace optiq::kernels::cuda
