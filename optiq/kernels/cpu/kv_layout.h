#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

/**
 * A block of the cache: 64 tokens of one layer of one sequence.
 *
 *   block   for each kv head: its keys, then its values
 *   side    float32   keys K^T [head_dim][64] or values V [64][head_dim]
 *           bfloat16  keys [head_dim / 2][64 tokens][2 channels] or values
 *                     [32 pairs of tokens][head_dim][2 tokens]
 *           packed    codes, then parameters
 *
 * Codes are cut into chunks as in panels.h: 32 inputs x 16 lanes, `bits`
 * vectors of 64 bytes. Of keys the lanes are tokens and the inputs channels
 * (padded to 32), of values the lanes are channels and the inputs tokens:
 *
 *   keys    [4 panels of 16 tokens][channels / 32][bits] vectors
 *   values  [channels / 16][2 chunks of 32 tokens][bits] vectors
 *
 * Parameters: affine, per group of channels 64 bf16 scales, then 64 bf16
 * biases; turbo, 64 f16 norms. A turbo side of b + 1/2 bits has b + 1 bits on
 * its first `wide` channels.
 */
namespace optiq::kernels::cpu {

inline constexpr std::size_t kBlockTokens = 64;
inline constexpr std::size_t kMaxHeadDim = 256; // packed sides

// What meets codes is rounded to int8, in exact arithmetic to this many digits
// of base 256: 2^-23 of the largest value that shares a scale.
inline constexpr int kExactDigits = 3;

enum class KvCode { Float32, BFloat16, Affine, Turbo };

/** Centroids of one width. value = centroid * norm / sqrt(head_dim), and
 *
 *   centroid = step * sum_j (planes[j] - 128) / 256^j
 *
 * within half a step of the planes taken. Unused entries are zero. */
struct CodeTable {
  int bits = 0;
  std::array<float, 32> centroids{};
  std::array<float, 31> edges{}; // between neighbours
  std::array<std::array<std::uint8_t, 32>, kExactDigits> planes{};
  float step = 0.f;
};

/** y = H S2 H S1 x with signs, or y = M x. Signs hold one or two rounds (two
 * when dim is not a power of two). */
struct RotationView {
  std::span<const float> signs; // [rounds][dim]
  std::span<const float> columns; // [dim][dim], row i = column i of M
  std::span<const float> rows; // [dim][dim], row i = row i of M
};

constexpr std::size_t round_up(std::size_t n, std::size_t to) {
  return (n + to - 1) / to * to;
}

/** Keys or values of one kv head in one block. */
struct KvSide {
  KvCode code = KvCode::BFloat16;
  std::size_t head_dim = 0;
  std::size_t dims = 0; // head_dim with the padding of the codes
  std::size_t bits = 0;
  std::size_t wide = 0; // channels with bits + 1; a multiple of 32
  std::size_t group = 0; // affine
  const CodeTable* table = nullptr; // turbo
  const CodeTable* wide_table = nullptr; // turbo, where wide > 0
  RotationView rotation; // turbo

  bool packed() const {
    return code == KvCode::Affine || code == KvCode::Turbo;
  }
  std::size_t bits_of(std::size_t channel) const {
    return bits + (channel < wide ? 1 : 0);
  }
  const CodeTable& table_of(std::size_t channel) const {
    return channel < wide ? *wide_table : *table;
  }
  std::size_t groups() const {
    // Most often 1, and then without the division, which a span would feel.
    return code != KvCode::Affine || head_dim <= group
        ? 1
        : (head_dim + group - 1) / group;
  }
  /** Bytes of the codes of the channels before `channel`, per 16 tokens. */
  std::size_t codes_before(std::size_t channel) const {
    return (channel * bits + (channel < wide ? channel : wide)) * 2;
  }
  std::size_t codes_bytes() const {
    return 4 * codes_before(dims);
  }
  std::size_t bytes() const {
    switch (code) {
      case KvCode::Float32:
        return head_dim * kBlockTokens * 4;
      case KvCode::BFloat16:
        return head_dim * kBlockTokens * 2;
      case KvCode::Affine:
        return codes_bytes() + groups() * 2 * kBlockTokens * 2;
      case KvCode::Turbo:
        break;
    }
    return codes_bytes() + kBlockTokens * 2;
  }
};

struct KvLayout {
  std::size_t n_kv_heads = 0;
  std::size_t head_dim = 0;
  bool exact = false; // all products are as good as float32's
  KvSide key;
  KvSide value;

  /** Whether a side meets queries or weights rounded to bfloat16, in dots of
   * pairs. */
  bool dots(const KvSide& side) const {
    return side.code == KvCode::BFloat16 && !exact;
  }
  /** Digits of what meets codes. */
  int digits() const {
    return exact ? kExactDigits : 1;
  }
  std::size_t head_bytes() const {
    return key.bytes() + value.bytes();
  }
  std::size_t block_bytes() const {
    return n_kv_heads * head_bytes();
  }
};

} // namespace optiq::kernels::cpu
