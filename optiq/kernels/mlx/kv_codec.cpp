#include "optiq/kernels/mlx/kv_codec.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "optiq/kernels/turbo.h"

namespace optiq::kernels::portable {
namespace {

constexpr int kWordBits = 32;
constexpr float kMaxNorm = 65504.f; // the largest finite f16

/** Channels [begin, end) of the last axis. */
mx::array channels(const mx::array& x, int begin, int end) {
  mx::Shape start(x.ndim(), 0);
  mx::Shape stop = x.shape();
  start.back() = begin;
  stop.back() = end;
  return mx::slice(x, start, stop);
}

/** x, its last channel repeated up to `width`: no extreme and no code of a
 * group changes. */
mx::array continued(const mx::array& x, int width) {
  const int n = x.shape(-1);
  if (n == width) {
    return x;
  }
  const mx::array last = channels(x, n - 1, n);
  return mx::concatenate({x, mx::repeat(last, width - n, -1)}, -1);
}

mx::array vector_of(std::span<const float> values) {
  return mx::array(
      values.data(), mx::Shape{static_cast<int>(values.size())}, mx::float32);
}

/** The number of edges below each value: the code of the nearest centroid. */
mx::array classify(const mx::array& z, int bits) {
  const auto n = static_cast<std::size_t>((1 << bits) - 1);
  const mx::array edges = vector_of(std::span(code_table(bits).edges).first(n));
  const mx::array above = mx::greater(mx::expand_dims(z, -1), edges);
  return mx::astype(mx::sum(above, -1), mx::uint32);
}

/** 0, 1, .. n - 1. */
mx::array places(int n) {
  return mx::arange(0, n, mx::uint32);
}

/** Codes [..., n] of `bits` as one stream of bits, lowest first, in words
 * [..., n * bits / 32]. n is a multiple of 32. */
mx::array pack(const mx::array& codes, int bits) {
  const mx::array digits = mx::bitwise_and(
      mx::right_shift(mx::expand_dims(codes, -1), places(bits)), mx::array(1u));
  mx::Shape words = codes.shape();
  words.back() = codes.shape(-1) * bits / kWordBits;
  words.push_back(kWordBits);
  const mx::array placed =
      mx::left_shift(mx::reshape(digits, words), places(kWordBits));
  return mx::astype(mx::sum(placed, -1), mx::uint32);
}

/** And back: MLX's dequantization at scale 1 and bias 0 reads such streams. */
mx::array unpack(const mx::array& words, int bits) {
  mx::Shape groups = words.shape();
  groups.back() = words.shape(-1) / bits; // of 32 codes
  const mx::array codes = mx::dequantize(
      words,
      mx::ones(groups, mx::float32),
      mx::zeros(groups, mx::float32),
      kWordBits,
      bits);
  return mx::astype(codes, mx::uint32);
}

/** A part as MLX's affine triple. */
std::vector<mx::array> encode_affine(const mx::array& x, const KvPart& part) {
  const mx::array padded = continued(
      channels(x, part.begin, part.begin + part.channels), part.padded);
  const std::vector<mx::array> triple =
      mx::quantize(padded, part.group, part.bits);
  // A code cannot say NaN or infinity; the bias of its group does.
  mx::Shape grouped = padded.shape();
  grouped.back() /= part.group;
  grouped.push_back(part.group);
  const mx::array not_finite =
      mx::sum(mx::multiply(mx::reshape(padded, grouped), mx::array(0.f)), -1);
  return {
      triple[0],
      mx::astype(triple[1], mx::bfloat16),
      mx::astype(mx::add(triple[2], not_finite), mx::bfloat16)};
}

mx::array decode_affine(
    std::span<const mx::array> triple,
    const KvPart& part,
    mx::Dtype dtype) {
  const mx::array x = mx::dequantize(
      triple[0],
      mx::astype(triple[1], dtype),
      mx::astype(triple[2], dtype),
      part.group,
      part.bits);
  return channels(x, 0, part.channels);
}

std::vector<mx::array> blank_block(
    const KvFormat& format,
    std::initializer_list<const KvSide*> sides) {
  const mx::array zeros = mx::zeros(
      {kKvBlockTokens, format.n_kv_heads, format.head_dim}, mx::float32);
  std::vector<mx::array> blank;
  for (const KvSide* side : sides) {
    for (const mx::array& array : side->encode(zeros)) {
      blank.push_back(mx::contiguous(array));
    }
  }
  mx::eval(blank);
  return blank;
}

} // namespace

KvSide::KvSide(const KvFormat& format, double bits, std::uint64_t seed) {
  if (format.codec.method == KvMethod::Dense || bits == 0) {
    dtype_ = format.dtype;
    return;
  }
  method_ = format.codec.method;
  parts_ = kv_parts(format, bits);
  if (method_ == KvMethod::Affine) {
    return;
  }
  rotation_ = rotate_vectors(
      mx::contiguous(mx::eye(format.head_dim)), format.codec.rotation, seed);
}

std::size_t KvSide::n_arrays() const {
  switch (method_) {
    case KvMethod::Dense:
      return 1;
    case KvMethod::Affine:
      return 3 * parts_.size();
    case KvMethod::Turbo:
      break;
  }
  return 1 + parts_.size();
}

std::vector<mx::array> KvSide::encode(const mx::array& x) const {
  switch (method_) {
    case KvMethod::Dense:
      return {mx::astype(x, dtype_)};
    case KvMethod::Turbo:
      return encode_turbo(x);
    case KvMethod::Affine:
      break;
  }
  std::vector<mx::array> arrays;
  for (const KvPart& part : parts_) {
    for (const mx::array& array : encode_affine(x, part)) {
      arrays.push_back(array);
    }
  }
  return arrays;
}

mx::array KvSide::decode(std::span<const mx::array> arrays, mx::Dtype dtype)
    const {
  switch (method_) {
    case KvMethod::Dense:
      return mx::astype(arrays[0], dtype);
    case KvMethod::Turbo:
      return mx::astype(decode_turbo(arrays), dtype);
    case KvMethod::Affine:
      break;
  }
  std::vector<mx::array> parts;
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    parts.push_back(decode_affine(arrays.subspan(3 * i, 3), parts_[i], dtype));
  }
  return parts.size() == 1 ? parts[0] : mx::concatenate(parts, -1);
}

std::vector<mx::array> KvSide::encode_turbo(const mx::array& x) const {
  const mx::array rotated = rotate(x);
  const float root = std::sqrt(static_cast<float>(x.shape(-1)));
  const mx::array norm = mx::sqrt(mx::sum(mx::square(rotated), -1, true));
  const mx::array unit = mx::where(
      mx::greater(norm, mx::array(0.f)),
      mx::divide(mx::multiply(rotated, mx::array(root)), norm),
      rotated);
  const mx::array stored = mx::where(
      mx::isfinite(norm), mx::minimum(norm, mx::array(kMaxNorm)), norm);
  std::vector<mx::array> arrays{mx::astype(stored, mx::float16)};
  for (const KvPart& part : parts_) {
    const mx::array codes = classify(
        channels(unit, part.begin, part.begin + part.channels), part.bits);
    arrays.push_back(pack(continued(codes, part.padded), part.bits));
  }
  return arrays;
}

mx::array KvSide::decode_turbo(std::span<const mx::array> arrays) const {
  std::vector<mx::array> parts;
  int dim = 0;
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const KvPart& part = parts_[i];
    const mx::array codes =
        channels(unpack(arrays[i + 1], part.bits), 0, part.channels);
    const mx::array centroids = vector_of(turbo_centroids(part.bits));
    parts.push_back(mx::take(centroids, codes));
    dim += part.channels;
  }
  const mx::array unit =
      parts.size() == 1 ? parts[0] : mx::concatenate(parts, -1);
  const float root = std::sqrt(static_cast<float>(dim));
  const mx::array norm =
      mx::divide(mx::astype(arrays[0], mx::float32), mx::array(root));
  return mx::multiply(unit, norm);
}

mx::array KvSide::rotate(const mx::array& x) const {
  return rotation_ ? mx::matmul(x, mx::astype(*rotation_, x.dtype())) : x;
}

mx::array KvSide::rotate_back(const mx::array& x) const {
  return rotation_
      ? mx::matmul(x, mx::transpose(mx::astype(*rotation_, x.dtype())))
      : x;
}

KvArrays::KvArrays(const KvFormat& format)
    : keys(format, format.codec.key_bits, format.codec.seed),
      values(
          format,
          format.codec.value_bits,
          format.codec.seed + kKvValueSeedStep),
      blank(blank_block(format, {&keys, &values})) {
  for (const mx::array& array : blank) {
    block_bytes += array.nbytes();
  }
}

mx::array cached_keys(const mx::array& k, const KvFormat& format) {
  const KvSide side(format, format.codec.key_bits, format.codec.seed);
  return side.rotate_back(side.decode(side.encode(k), mx::float32));
}

mx::array cached_values(const mx::array& v, const KvFormat& format) {
  const KvSide side(
      format, format.codec.value_bits, format.codec.seed + kKvValueSeedStep);
  return side.rotate_back(side.decode(side.encode(v), mx::float32));
}

} // namespace optiq::kernels::portable
