#include "optiq/kernels/kv_format.h"

#include <cmath>
#include <initializer_list>

#include "optiq/artifacts/affine_format.h"
#include "optiq/base/error.h"

namespace optiq::kernels {
namespace {

bool is_one_of(double x, std::initializer_list<double> allowed) {
  for (const double candidate : allowed) {
    if (x == candidate) {
      return true;
    }
  }
  return false;
}

void check_bits(KvMethod method, const char* side, double bits, int head_dim) {
  if (bits == 0) {
    return;
  }
  if (method == KvMethod::Affine) {
    if (!artifacts::is_one_of(artifacts::kAffineBits, bits)) {
      fail(
          ErrorKind::Unsupported,
          "[kv_format] {}: found affine at {} bits, expected {}: MLX's "
          "affine format has no others. Choose one of these.",
          side,
          bits,
          artifacts::list_text(artifacts::kAffineBits));
    }
    return;
  }
  if (bits > 5) {
    fail(
        ErrorKind::Unsupported,
        "[kv_format] {}: found turbo at {} bits, expected at most 5: "
        "above that affine loses as little and needs no rotation. Use affine "
        "at 6 or 8 bits.",
        side,
        bits);
  }
  if (!is_one_of(bits, {1, 2, 2.5, 3, 3.5, 4, 5})) {
    fail(
        ErrorKind::Unsupported,
        "[kv_format] {}: found turbo at {} bits, expected 1, 2, 2.5, 3, "
        "3.5, 4 or 5. Choose one of these.",
        side,
        bits);
  }
  if (bits != std::floor(bits) && head_dim < 64) {
    fail(
        ErrorKind::Unsupported,
        "[kv_format] {}: found turbo at {} bits with a head_dim of {}, "
        "expected at least 64: half of the channels must fill chunks of 32. "
        "Choose a whole width.",
        side,
        bits,
        head_dim);
  }
}

void check_shape(const KvFormat& format) {
  if (format.n_kv_heads <= 0 || format.head_dim <= 0 || format.window < 0) {
    fail(
        ErrorKind::InvalidInput,
        "[kv_format] found {} kv heads of {} with a window of {}, "
        "expected positive heads and a window of 0 (all) or more. Pass the "
        "layer's shape.",
        format.n_kv_heads,
        format.head_dim,
        format.window);
  }
  if (format.dtype != mx::float32 && format.dtype != mx::bfloat16) {
    fail(
        ErrorKind::InvalidInput,
        "[kv_format] dtype: found KV elements of {} bytes that are "
        "neither float32 nor bfloat16. Choose one of these.",
        mx::size_of(format.dtype));
  }
  if (format.dtype == mx::bfloat16 && format.head_dim % 2 != 0) {
    fail(
        ErrorKind::InvalidInput,
        "[kv_format] head_dim: found {} in bfloat16, expected an even "
        "number: channels lie in pairs. Choose float32.",
        format.head_dim);
  }
}

void check_packed(const KvFormat& format) {
  const KvCodec& codec = format.codec;
  if (format.head_dim % 16 != 0 ||
      format.head_dim > static_cast<int>(kMaxPackedHeadDim)) {
    fail(
        ErrorKind::Unsupported,
        "[kv_format] head_dim: found {}, expected a multiple of 16 up to "
        "{}. Keep this layer's cache dense.",
        format.head_dim,
        kMaxPackedHeadDim);
  }
  if (codec.key_bits == 0 && codec.value_bits == 0) {
    fail(
        ErrorKind::InvalidInput,
        "[kv_format] found 0 bits on both sides of a quantized format, "
        "expected a width on one at least. Use the dense method.");
  }
  check_bits(codec.method, "keys", codec.key_bits, format.head_dim);
  check_bits(codec.method, "values", codec.value_bits, format.head_dim);
  if (codec.method == KvMethod::Affine &&
      !artifacts::is_one_of(artifacts::kAffineGroupSizes, codec.group_size)) {
    fail(
        ErrorKind::Unsupported,
        "[kv_format] group_size: found {}, expected {}. Choose one of "
        "these.",
        codec.group_size,
        artifacts::list_text(artifacts::kAffineGroupSizes));
  }
}

} // namespace

std::size_t KvFormat::block_bytes() const {
  if (!layout) {
    fail(
        ErrorKind::InvalidInput,
        "[KvFormat::block_bytes] found no layout of its blocks, expected one. "
        "Make the format with Device::kv_format.");
  }
  return layout->block_bytes;
}

void check_kv_format(const KvFormat& format) {
  check_shape(format);
  if (format.codec.method != KvMethod::Dense) {
    check_packed(format);
    return;
  }
  if (format.codec.key_bits != 0 || format.codec.value_bits != 0) {
    fail(
        ErrorKind::InvalidInput,
        "[kv_format] found {} and {} bits on a dense format, expected 0: its "
        "width is that of its dtype. Choose a method for these bits.",
        format.codec.key_bits,
        format.codec.value_bits);
  }
}

} // namespace optiq::kernels
