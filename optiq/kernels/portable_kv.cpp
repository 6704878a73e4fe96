#include <cmath>
#include <vector>

#include <mlx/ops.h>

#include "optiq/kernels/cpu/kv_format.h"
#include "optiq/kernels/portable.h"
#include "optiq/kernels/turbo.h"

namespace optiq::kernels::portable {
namespace {

/** Channels [begin, end) of the last axis. */
mx::array channels(const mx::array& x, int begin, int end) {
  mx::Shape start(x.ndim(), 0);
  mx::Shape stop = x.shape();
  start.back() = begin;
  stop.back() = end;
  return mx::slice(x, start, stop);
}

mx::array through(const mx::array& x, mx::Dtype dtype) {
  return mx::astype(mx::astype(x, dtype), mx::float32);
}

/** One group of channels. A short one is continued with its last value, which
 * changes neither its extremes nor its codes. */
mx::array affine_group(const mx::array& x, int group, int bits) {
  const int n = x.shape(-1);
  mx::array padded = x;
  if (n < group) {
    const mx::array last = channels(x, n - 1, n);
    padded = mx::concatenate({x, mx::repeat(last, group - n, -1)}, -1);
  }
  const std::vector<mx::array> parts = mx::quantize(padded, group, bits);
  const mx::array y = mx::dequantize(
      parts[0],
      through(parts[1], mx::bfloat16),
      through(parts[2], mx::bfloat16),
      group,
      bits);
  return channels(y, 0, n);
}

mx::array affine(const mx::array& x, const cpu::KvSide& side) {
  const int dim = x.shape(-1);
  const auto group = static_cast<int>(side.group);
  std::vector<mx::array> parts;
  for (int at = 0; at < dim; at += group) {
    parts.push_back(affine_group(
        channels(x, at, std::min(dim, at + group)),
        group,
        static_cast<int>(side.bits)));
  }
  return mx::concatenate(parts, -1);
}

/** The nearest centroid of every value. */
mx::array nearest(const mx::array& z, const cpu::CodeTable& table) {
  mx::array code = mx::zeros_like(z, mx::int32);
  for (int e = 0; e + 1 < 1 << table.bits; ++e) {
    code = mx::add(
        code, mx::astype(mx::greater(z, mx::array(table.edges[e])), mx::int32));
  }
  const mx::array centroids(
      table.centroids.data(),
      mx::Shape{static_cast<int>(table.centroids.size())},
      mx::float32);
  return mx::take(centroids, code);
}

mx::array turbo(
    const mx::array& x,
    const cpu::KvSide& side,
    const KvFormat& format,
    std::uint64_t seed) {
  const int dim = x.shape(-1);
  const float root = std::sqrt(static_cast<float>(dim));
  // Row i is what the rotation makes of channel i.
  const mx::array rotation =
      rotate_vectors(mx::contiguous(mx::eye(dim)), format.codec.rotation, seed);
  const mx::array rotated = mx::matmul(x, rotation);
  const mx::array norm = mx::sqrt(mx::sum(mx::square(rotated), -1, true));
  const mx::array z = mx::where(
      mx::greater(norm, mx::array(0.f)),
      mx::divide(mx::multiply(rotated, mx::array(root)), norm),
      rotated);
  const auto wide = static_cast<int>(side.wide);
  std::vector<mx::array> parts;
  if (wide > 0) {
    parts.push_back(nearest(channels(z, 0, wide), *side.wide_table));
  }
  parts.push_back(nearest(channels(z, wide, dim), *side.table));
  const mx::array y = mx::multiply(
      mx::concatenate(parts, -1),
      mx::divide(through(norm, mx::float16), mx::array(root)));
  return mx::matmul(y, mx::transpose(rotation));
}

mx::array cached(
    const mx::array& x,
    const cpu::KvSide& side,
    const KvFormat& format,
    std::uint64_t seed) {
  switch (side.code) {
    case cpu::KvCode::Float32:
      return x;
    case cpu::KvCode::BFloat16:
      return through(x, mx::bfloat16);
    case cpu::KvCode::Affine:
      return affine(x, side);
    case cpu::KvCode::Turbo:
      break;
  }
  return turbo(x, side, format, seed);
}

} // namespace

mx::array cached_keys(const mx::array& k, const KvFormat& format) {
  return cached(
      k, cpu::layout_of("cached", format).key, format, format.codec.seed);
}

mx::array cached_values(const mx::array& v, const KvFormat& format) {
  return cached(
      v,
      cpu::layout_of("cached", format).value,
      format,
      format.codec.seed + kKvValueSeedStep);
}

} // namespace optiq::kernels::portable
