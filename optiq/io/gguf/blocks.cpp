// Blocks, all numbers little-endian, d and m float16, codes q unsigned. A byte
// holds the low four bits of two codes: q[i] and, in its high nibble, q[i +
// 16], in the K types q[i + 32] of each 64.
//
//   Q4_0  d q[32]:4                          d * (q - 8)
//   Q4_1  d m q[32]:4                        d * q + m
//   Q5_0  d high[32]:1 q[32]:4               d * (q - 16)
//   Q5_1  d m high[32]:1 q[32]:4             d * q + m
//   Q8_0  d q[32]:8 (signed)                 d * q
//   Q4_K  d m sm[8]:6+6 q[256]:4             (d * s) * q - (m * sm)
//   Q5_K  d m sm[8]:6+6 high[256]:1 q[256]:4 (d * s) * q - (m * sm)
//   Q2_K  sm[16]:4+4 q[256]:2 d m            (d * s) * q - (m * sm)
//   Q3_K  high[256]:1 q[256]:2 s[16]:6 d     (d * (s - 32)) * (q - 4)
//   Q6_K  q[256]:4 high[256]:2 s[16]:8 d     (d * s) * (q - 32)
//   IQ4_NL d q[32]:4                         d * table[q]
//   IQ4_XS d s[8]:6 q[256]:4                 (d * (s - 32)) * table[q]
//   MXFP4 e q[32]:4 (e2m1)                   2^(e - 127) * q, e unsigned
//
// IQ4_XS has the scales' high bits (two bytes) before the low nibbles. Products
// of a scale and a code are exact in float32, so each value is rounded once,
// however it is computed.
#include <algorithm>
#include <cmath>
#include <cstring>

#include <mlx/types/half_types.h>

#include "optiq/io/gguf/blocks_impl.h"

namespace optiq::io {
namespace {

constexpr int kGroup = kGgufGroup;

std::uint8_t byte_at(const std::byte* at) {
  return std::to_integer<std::uint8_t>(*at);
}

float half_at(const std::byte* at) {
  mx::float16_t half;
  std::memcpy(&half, at, sizeof(half));
  return static_cast<float>(half);
}

void unpack_nibbles(const std::byte* at, Group& group) {
  for (int i = 0; i < kGroup / 2; ++i) {
    group.codes[i] = byte_at(at + i) & 15;
    group.codes[i + kGroup / 2] = byte_at(at + i) >> 4;
  }
}

void add_high_bits(const std::byte* at, Group& group) {
  std::uint32_t high = 0;
  std::memcpy(&high, at, sizeof(high));
  for (int i = 0; i < kGroup; ++i) {
    group.codes[i] |= (high >> i & 1) << 4;
  }
}

void unpack_q4_0(const std::byte* block, Group* group) {
  group->scale = half_at(block);
  group->zero = 8;
  unpack_nibbles(block + 2, *group);
}

void unpack_q4_1(const std::byte* block, Group* group) {
  group->scale = half_at(block);
  group->bias = half_at(block + 2);
  unpack_nibbles(block + 4, *group);
}

void unpack_q5_0(const std::byte* block, Group* group) {
  group->scale = half_at(block);
  group->zero = 16;
  unpack_nibbles(block + 6, *group);
  add_high_bits(block + 2, *group);
}

void unpack_q5_1(const std::byte* block, Group* group) {
  group->scale = half_at(block);
  group->bias = half_at(block + 2);
  unpack_nibbles(block + 8, *group);
  add_high_bits(block + 4, *group);
}

void unpack_q8_0(const std::byte* block, Group* group) {
  group->scale = half_at(block);
  group->zero = 128;
  for (int i = 0; i < kGroup; ++i) {
    group->codes[i] = byte_at(block + 2 + i) ^ 0x80; // signed + 128
  }
}

/** Scales and minima of a K block, six bits each in twelve bytes: the first
 * four pairs in the low bits of bytes 0-3 and 4-7; of the last four the low
 * nibbles in bytes 8-11, the two high bits on top of bytes 0-7. */
void unpack_k_scales(const std::byte* block, Group* groups) {
  const float d = half_at(block);
  const float m = half_at(block + 2);
  const std::byte* packed = block + 4;
  for (int i = 0; i < 4; ++i) {
    const int a = byte_at(packed + i);
    const int b = byte_at(packed + 4 + i);
    const int c = byte_at(packed + 8 + i);
    groups[i].scale = d * static_cast<float>(a & 63);
    groups[i].bias = -(m * static_cast<float>(b & 63));
    groups[i + 4].scale = d * static_cast<float>((c & 15) | (a >> 6) << 4);
    groups[i + 4].bias = -(m * static_cast<float>((c >> 4) | (b >> 6) << 4));
  }
}

void unpack_k_nibbles(const std::byte* at, Group* groups) {
  for (std::size_t g = 0; g < kMaxGroups; g += 2) {
    for (std::size_t i = 0; i < kGroup; ++i) {
      const int pair = byte_at(at + g / 2 * kGroup + i);
      groups[g].codes[i] = pair & 15;
      groups[g + 1].codes[i] = pair >> 4;
    }
  }
}

void unpack_q4_k(const std::byte* block, Group* groups) {
  unpack_k_scales(block, groups);
  unpack_k_nibbles(block + 16, groups);
}

void unpack_q5_k(const std::byte* block, Group* groups) {
  unpack_k_scales(block, groups);
  unpack_k_nibbles(block + 48, groups);
  for (int g = 0; g < kMaxGroups; ++g) {
    for (int i = 0; i < kGroup; ++i) {
      groups[g].codes[i] |= (byte_at(block + 16 + i) >> g & 1) << 4;
    }
  }
}

// A scale of a K type is a product of 17 bits: more than float16 holds.
const GroupedType kGroupedTypes[] = {
    {GgufType::Q4_0, {4, mx::float16}, unpack_q4_0},
    {GgufType::Q4_1, {4, mx::float16}, unpack_q4_1},
    {GgufType::Q5_0, {5, mx::float16}, unpack_q5_0},
    {GgufType::Q5_1, {5, mx::float16}, unpack_q5_1},
    {GgufType::Q8_0, {8, mx::float16}, unpack_q8_0},
    {GgufType::Q4_K, {4, mx::float32}, unpack_q4_k},
    {GgufType::Q5_K, {5, mx::float32}, unpack_q5_k},
};

void decode_q6_k(const std::byte* block, float* out) {
  const std::byte* high = block + 128;
  const std::byte* scales = block + 192;
  const float d = half_at(block + 208);
  for (std::size_t i = 0; i < kSuperBlock; ++i) {
    // Each half of 128: nibble i / 64 of byte i % 64, bit pair i / 32 of byte
    // i % 32.
    const std::size_t half = i / 128;
    const std::size_t at = i % 128;
    const int low = byte_at(block + half * 64 + at % 64) >> at / 64 * 4 & 15;
    const int top = byte_at(high + half * 32 + at % 32) >> at / 32 * 2 & 3;
    const auto scale = static_cast<std::int8_t>(byte_at(scales + i / 16));
    out[i] = d * static_cast<float>(scale) *
        static_cast<float>((low | top << 4) - 32);
  }
}

/** Code i of 256 codes of two bits: each half of 128 in 32 bytes, pair i / 32
 * of byte i % 32. */
int two_bits(const std::byte* codes, std::size_t i) {
  const std::size_t at = i % 128;
  return byte_at(codes + i / 128 * 32 + at % 32) >> at / 32 * 2 & 3;
}

void decode_q2_k(const std::byte* block, float* out) {
  const std::byte* codes = block + 16;
  const float d = half_at(block + 80);
  const float m = half_at(block + 82);
  for (int i = 0; i < kSuperBlock; ++i) {
    const int packed = byte_at(block + i / 16);
    const float scale = d * static_cast<float>(packed & 15);
    const float minimum = m * static_cast<float>(packed >> 4);
    out[i] = scale * static_cast<float>(two_bits(codes, i)) - minimum;
  }
}

/** Scale i of Q3_K's sixteen in twelve bytes: low nibbles in the first eight,
 * bit pairs on top in the last four. */
int q3_k_scale(const std::byte* packed, int i) {
  const int low = byte_at(packed + i % 8) >> i / 8 * 4 & 15;
  const int high = byte_at(packed + 8 + i % 4) >> i / 4 * 2 & 3;
  return (low | high << 4) - 32;
}

void decode_q3_k(const std::byte* block, float* out) {
  const std::byte* codes = block + 32;
  const std::byte* scales = block + 96;
  const float d = half_at(block + 108);
  for (int i = 0; i < kSuperBlock; ++i) {
    const float scale = d * static_cast<float>(q3_k_scale(scales, i / 16));
    const int high = byte_at(block + i % 32) >> i / 32 & 1;
    out[i] = scale * static_cast<float>((two_bits(codes, i) | high << 2) - 4);
  }
}

// The values that codes of IQ4_NL and IQ4_XS stand for.
constexpr float kIq4Values[16] =
    {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// Twice the values of e2m1: a sign, two bits of exponent, one of mantissa.
constexpr float kE2m1Doubles[16] =
    {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/** 32 codes of four bits through a table: i low, i + 16 high. */
void decode_nibbles(
    const std::byte* codes,
    float scale,
    const float (&table)[16],
    float* out) {
  for (int i = 0; i < kGgufGroup / 2; ++i) {
    out[i] = scale * table[byte_at(codes + i) & 15];
    out[i + kGgufGroup / 2] = scale * table[byte_at(codes + i) >> 4];
  }
}

void decode_iq4_nl(const std::byte* block, float* out) {
  decode_nibbles(block + 2, half_at(block), kIq4Values, out);
}

void decode_iq4_xs(const std::byte* block, float* out) {
  const float d = half_at(block);
  const int high = byte_at(block + 2) | byte_at(block + 3) << 8;
  for (std::size_t g = 0; g < kMaxGroups; ++g) {
    const int low = byte_at(block + 4 + g / 2) >> g % 2 * 4 & 15;
    const int scale = (low | (high >> 2 * g & 3) << 4) - 32;
    decode_nibbles(
        block + 8 + g * kGgufGroup / 2,
        d * static_cast<float>(scale),
        kIq4Values,
        out + g * kGgufGroup);
  }
}

void decode_mxfp4(const std::byte* block, float* out) {
  // Half of 2^(e - 127), since the table has doubles.
  const float half_scale = std::ldexp(1.f, byte_at(block) - 128);
  decode_nibbles(block + 1, half_scale, kE2m1Doubles, out);
}

void decode_f16(const std::byte* block, float* out) {
  *out = half_at(block);
}

void decode_bf16(const std::byte* block, float* out) {
  const std::uint32_t bits = byte_at(block) << 16 | byte_at(block + 1) << 24;
  std::memcpy(out, &bits, sizeof(bits));
}

void decode_f32(const std::byte* block, float* out) {
  std::memcpy(out, block, sizeof(float));
}

/** A type without groups of 32 codes. */
struct ValueType {
  GgufType type;
  void (*decode)(const std::byte* block, float* out);
};

const ValueType kValueTypes[] = {
    {GgufType::F32, decode_f32},
    {GgufType::F16, decode_f16},
    {GgufType::BF16, decode_bf16},
    {GgufType::Q2_K, decode_q2_k},
    {GgufType::Q3_K, decode_q3_k},
    {GgufType::Q6_K, decode_q6_k},
    {GgufType::IQ4_NL, decode_iq4_nl},
    {GgufType::IQ4_XS, decode_iq4_xs},
    {GgufType::MXFP4, decode_mxfp4},
};

template <typename Row, std::size_t N>
const Row* find_row(const Row (&rows)[N], GgufType type) {
  const auto* found =
      std::find_if(std::begin(rows), std::end(rows), [&](const Row& row) {
        return row.type == type;
      });
  return found == std::end(rows) ? nullptr : found;
}

void values_of(const Group& group, float* out) {
  for (int i = 0; i < kGroup; ++i) {
    const auto code = static_cast<float>(group.codes[i] - group.zero);
    out[i] =
        group.zero != 0 ? group.scale * code : group.scale * code + group.bias;
  }
}

} // namespace

const GroupedType* find_grouped(GgufType type) {
  return find_row(kGroupedTypes, type);
}

void decode_block(GgufType type, const std::byte* block, float* out) {
  const GroupedType* grouped = find_grouped(type);
  if (grouped == nullptr) {
    find_row(kValueTypes, type)->decode(block, out);
    return;
  }
  std::array<Group, kMaxGroups> groups;
  grouped->unpack(block, groups.data());
  const auto n = static_cast<std::size_t>(block_elements(type)) / kGroup;
  for (std::size_t g = 0; g < n; ++g) {
    values_of(groups[g], out + g * kGroup);
  }
}

} // namespace optiq::io
