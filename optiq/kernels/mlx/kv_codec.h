#pragma once

#include <optional>
#include <span>
#include <vector>

#include <mlx/array.h>

#include "optiq/kernels/kv_format.h"
#include "optiq/kernels/kv_parts.h"

/**
 * K/V of a format as MLX arrays, tokens first: every side is a list of arrays
 * [tokens, n_kv_heads, ...].
 *
 *   dense   the vectors, float32 or bfloat16
 *   affine  per part: u32 words, bf16 scales, bf16 biases: MLX's triple
 *   turbo   f16 norms [.., 1], then per part u32 words of codes in the order of
 *           MLX's affine words
 *
 * A part is a range of channels of one width (kv_parts.h).
 */
namespace optiq::kernels::portable {

/** Keys or values. */
class KvSide {
 public:
  KvSide(const KvFormat& format, double bits, std::uint64_t seed);

  std::size_t n_arrays() const;
  /** x [tokens, n_kv_heads, head_dim] float32. */
  std::vector<mx::array> encode(const mx::array& x) const;
  /** [tokens, n_kv_heads, head_dim] of this dtype, as rotated. */
  mx::array decode(std::span<const mx::array> arrays, mx::Dtype dtype) const;

  /** Vectors [..., head_dim] turned as those of this side are: products with
   * what decode gives are those with the vectors themselves. */
  mx::array rotate(const mx::array& x) const;
  mx::array rotate_back(const mx::array& x) const;

 private:
  std::vector<mx::array> encode_turbo(const mx::array& x) const;
  mx::array decode_turbo(std::span<const mx::array> arrays) const;

  KvMethod method_ = KvMethod::Dense;
  mx::Dtype dtype_ = mx::float32; // dense
  std::vector<KvPart> parts_; // affine and turbo
  std::optional<mx::array> rotation_; // turbo: row i is where channel i goes
};

/** The layout of the MLX device's blocks: the keys' arrays, then the values',
 * of 64 tokens. */
struct KvArrays final : KvLayout {
  /** Of a checked format. */
  explicit KvArrays(const KvFormat& format);

  KvSide keys;
  KvSide values;
  std::vector<mx::array> blank; // of a block of zeros
};

/** k or v [S, Hkv, D] as the format's cache holds them: quantized and turned
 * back into float32. With `attend` the oracle of packed attention. */
mx::array cached_keys(const mx::array& k, const KvFormat& format);
mx::array cached_values(const mx::array& v, const KvFormat& format);

} // namespace optiq::kernels::portable
