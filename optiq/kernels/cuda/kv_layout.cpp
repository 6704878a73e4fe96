#include "optiq/kernels/cuda/kv_layout.h"

#include <algorithm>
#include <bit>

#include <mlx/ops.h>

#include "optiq/base/error.h"
#include "optiq/io/array.h"
#include "optiq/kernels/cuda/operations.h"
#include "optiq/kernels/cuda/pointers_impl.h"
#include "optiq/kernels/kv_parts.h"
#include "optiq/kernels/turbo.h"

namespace optiq::kernels::cuda {
namespace {

constexpr int kWordBits = 32;
constexpr int kAligned = 16; // bytes, of every side
constexpr int kAlignedChannels = 4; // of one load

int round_up(int n, int to) {
  return (n + to - 1) / to * to;
}

/** Bytes of what float16 has nearest to centroids: attention_decode.cu looks
 * them up by bytes. */
void set_half_bytes(KvPart& part) {
  constexpr int kEntries = 8;
  const int n = 1 << part.bits;
  const int first = n > kEntries ? n - kEntries : 0;
  for (int i = 0; i < std::min(n, kEntries); ++i) {
    const auto half =
        std::bit_cast<std::uint16_t>(mx::float16_t(part.centroids[first + i]));
    const int shift = i % 4 * 8;
    part.half_bytes[i / 4] |= static_cast<std::uint32_t>(half & 0xff) << shift;
    part.half_bytes[2 + i / 4] |= static_cast<std::uint32_t>(half >> 8)
        << shift;
  }
}

/** A part whose arrays begin at `at`, which moves behind them. */
KvPart part_of(const kernels::KvPart& given, KvMethod method, int& at) {
  KvPart part{
      .begin = given.begin,
      .channels = given.channels,
      .padded = given.padded,
      .bits = given.bits,
      .group = given.group,
      .groups = given.padded / given.group,
      .words = given.padded * given.bits / kWordBits,
      .words_at = at};
  at += kKvBlockTokens * part.words * 4;
  if (method == KvMethod::Affine) {
    const int bytes = kKvBlockTokens * part.groups * 2;
    part.scales_at = at;
    part.biases_at = at + bytes;
    at += 2 * bytes;
    return part;
  }
  const cpu::CodeTable& table = code_table(part.bits);
  std::copy(table.centroids.begin(), table.centroids.end(), part.centroids);
  std::copy(table.edges.begin(), table.edges.end(), part.edges);
  set_half_bytes(part);
  return part;
}

KvSide side_of(const KvFormat& format, double bits) {
  KvSide side{.head_dim = format.head_dim};
  const KvMethod method = format.codec.method;
  if (method == KvMethod::Dense || bits == 0) {
    side.code = KvCode::Dense;
    side.is_half = format.dtype == mx::bfloat16 ? 1 : 0;
    side.bytes = kKvBlockTokens * format.head_dim * (side.is_half ? 2 : 4);
    return side;
  }
  side.code = method == KvMethod::Affine ? KvCode::Affine : KvCode::Turbo;
  // A turbo side begins with the norms.
  int at = method == KvMethod::Turbo ? kKvBlockTokens * 2 : 0;
  for (const kernels::KvPart& part : kv_parts(format, bits)) {
    side.parts[side.n_parts++] = part_of(part, method, at);
  }
  side.bytes = round_up(at, kAligned);
  return side;
}

/** Row i is where channel i goes. */
Buffer keep_rotation(Card& card, const KvFormat& format, std::uint64_t seed) {
  const mx::array rotation = rotate_vectors(
      io::materialize(mx::eye(format.head_dim)), format.codec.rotation, seed);
  Buffer kept = card.memory().take_exactly(rotation.nbytes());
  card.copy_in(*kept, rotation.data<void>(), rotation.nbytes());
  return kept;
}

} // namespace

KvShape kv_shape(const KvFormat& format) {
  if (format.head_dim > kMaxHeadDim ||
      format.head_dim % kAlignedChannels != 0) {
    fail(
        ErrorKind::Unsupported,
        "[cuda] head_dim: found {}, expected a multiple of {} up to {}. Choose "
        "--device cpu.",
        format.head_dim,
        kAlignedChannels,
        kMaxHeadDim);
  }
  return {
      .key = side_of(format, format.codec.key_bits),
      .value = side_of(format, format.codec.value_bits),
      .n_kv_heads = format.n_kv_heads};
}

KvFormat kv_format(Card& card, KvFormat format) {
  check_kv_format(format);
  auto layout = std::make_shared<CardKvLayout>();
  layout->card = &card;
  layout->shape = kv_shape(format);
  const auto rotate = [&](KvSide& side, std::uint64_t seed) {
    if (side.code == KvCode::Turbo) {
      layout->rotations.push_back(keep_rotation(card, format, seed));
      side.rotation = pointer_of<const float>(*layout->rotations.back());
    }
  };
  rotate(layout->shape.key, format.codec.seed);
  rotate(layout->shape.value, format.codec.seed + kKvValueSeedStep);
  layout->block_bytes = static_cast<std::size_t>(format.n_kv_heads) *
      (layout->shape.key.bytes + layout->shape.value.bytes);
  format.layout = std::move(layout);
  return format;
}

const CardKvLayout&
layout_of(const char* function, const Card& card, const KvFormat& format) {
  const auto* layout = dynamic_cast<const CardKvLayout*>(format.layout.get());
  if (layout == nullptr || layout->card != &card) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] format: found one without a layout on cuda:{}, expected one that "
        "its kv_format made.",
        function,
        card.info().index);
  }
  return *layout;
}

} // namespace optiq::kernels::cuda
