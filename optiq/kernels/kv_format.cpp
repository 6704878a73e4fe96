#include <cmath>
#include <initializer_list>
#include <memory>
#include <utility>

#include "optiq/base/error.h"
#include "optiq/kernels/kv_format_impl.h"

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
    if (!is_one_of(bits, {2, 3, 4, 5, 6, 8})) {
      fail(
          ErrorKind::Unsupported,
          "[make_kv_format] {}: found affine at {} bits, expected 2, 3, 4, 5, "
          "6 or 8: MLX's affine format has no others. Choose one of these.",
          side,
          bits);
    }
    return;
  }
  if (bits > 5) {
    fail(
        ErrorKind::Unsupported,
        "[make_kv_format] {}: found turbo at {} bits, expected at most 5: "
        "above that affine loses as little and needs no rotation. Use affine "
        "at 6 or 8 bits.",
        side,
        bits);
  }
  if (!is_one_of(bits, {1, 2, 2.5, 3, 3.5, 4, 5})) {
    fail(
        ErrorKind::Unsupported,
        "[make_kv_format] {}: found turbo at {} bits, expected 1, 2, 2.5, 3, "
        "3.5, 4 or 5. Choose one of these.",
        side,
        bits);
  }
  if (bits != std::floor(bits) && head_dim < 64) {
    fail(
        ErrorKind::Unsupported,
        "[make_kv_format] {}: found turbo at {} bits with a head_dim of {}, "
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
        "[make_kv_format] found {} kv heads of {} with a window of {}, "
        "expected positive heads and a window of 0 (all) or more. Pass the "
        "layer's shape.",
        format.n_kv_heads,
        format.head_dim,
        format.window);
  }
  if (format.dtype != mx::float32 && format.dtype != mx::bfloat16) {
    fail(
        ErrorKind::InvalidInput,
        "[make_kv_format] dtype: found KV elements of {} bytes that are "
        "neither float32 nor bfloat16. Choose one of these.",
        mx::size_of(format.dtype));
  }
  if (format.dtype == mx::bfloat16 && format.head_dim % 2 != 0) {
    fail(
        ErrorKind::InvalidInput,
        "[make_kv_format] head_dim: found {} in bfloat16, expected an even "
        "number: channels lie in pairs. Choose float32.",
        format.head_dim);
  }
}

void check_packed(const KvFormat& format) {
  const KvCodec& codec = format.codec;
  if (format.head_dim % 16 != 0 ||
      format.head_dim > static_cast<int>(cpu::kMaxHeadDim)) {
    fail(
        ErrorKind::Unsupported,
        "[make_kv_format] head_dim: found {}, expected a multiple of 16 up to "
        "{}. Keep this layer's cache dense.",
        format.head_dim,
        cpu::kMaxHeadDim);
  }
  if (codec.key_bits == 0 && codec.value_bits == 0) {
    fail(
        ErrorKind::InvalidInput,
        "[make_kv_format] found 0 bits on both sides of a quantized format, "
        "expected a width on one at least. Use the dense method.");
  }
  check_bits(codec.method, "keys", codec.key_bits, format.head_dim);
  check_bits(codec.method, "values", codec.value_bits, format.head_dim);
  if (codec.method == KvMethod::Affine &&
      !is_one_of(codec.group_size, {32, 64, 128})) {
    fail(
        ErrorKind::Unsupported,
        "[make_kv_format] group_size: found {}, expected 32, 64 or 128. "
        "Choose one of these.",
        codec.group_size);
  }
}

cpu::KvSide side_of(const KvFormat& format, double bits, std::size_t pad) {
  cpu::KvSide side;
  side.head_dim = static_cast<std::size_t>(format.head_dim);
  if (format.codec.method == KvMethod::Dense || bits == 0) {
    side.code = format.dtype == mx::float32 ? cpu::KvCode::Float32
                                            : cpu::KvCode::BFloat16;
    side.dims = side.head_dim;
    return side;
  }
  side.dims = cpu::round_up(side.head_dim, pad);
  side.bits = static_cast<std::size_t>(bits);
  if (format.codec.method == KvMethod::Affine) {
    side.code = cpu::KvCode::Affine;
    side.group = static_cast<std::size_t>(format.codec.group_size);
    return side;
  }
  side.code = cpu::KvCode::Turbo;
  side.table = &code_table(static_cast<int>(side.bits));
  if (bits != std::floor(bits)) {
    // Half of the channels, in whole chunks: never above the nominal width.
    side.wide = side.head_dim / 64 * 32;
    side.wide_table = &code_table(static_cast<int>(side.bits) + 1);
  }
  return side;
}

} // namespace

KvFormat make_kv_format(KvFormat format) {
  check_shape(format);
  const KvCodec& codec = format.codec;
  if (codec.method == KvMethod::Dense) {
    if (codec.key_bits != 0 || codec.value_bits != 0) {
      fail(
          ErrorKind::InvalidInput,
          "[make_kv_format] found {} and {} bits on a dense format, expected 0: "
          "its width is that of its dtype. Choose a method for these bits.",
          codec.key_bits,
          codec.value_bits);
    }
    return format;
  }
  check_packed(format);
  if (codec.method == KvMethod::Turbo) {
    format.rotations = std::make_shared<KvRotations>(KvRotations{
        Rotation(codec.rotation, format.head_dim, codec.seed),
        Rotation(
            codec.rotation, format.head_dim, codec.seed + kKvValueSeedStep)});
  }
  return format;
}

cpu::KvLayout layout_of(const KvFormat& format) {
  // Lanes of values are channels, 16 to a panel; keys take them in chunks.
  cpu::KvLayout layout{
      .n_kv_heads = static_cast<std::size_t>(format.n_kv_heads),
      .head_dim = static_cast<std::size_t>(format.head_dim),
      .exact = format.compute == Compute::Exact,
      .key = side_of(format, format.codec.key_bits, 32),
      .value = side_of(format, format.codec.value_bits, 16)};
  if (format.rotations) {
    layout.key.rotation = format.rotations->key.view();
    layout.value.rotation = format.rotations->value.view();
  }
  return layout;
}

std::size_t KvFormat::block_bytes() const {
  return layout_of(*this).block_bytes();
}

} // namespace optiq::kernels
