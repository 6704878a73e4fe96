#include "optiq/kernels/cpu/kv_layout.h"

#include <cmath>
#include <memory>
#include <optional>
#include <utility>

#include "optiq/base/error.h"
#include "optiq/kernels/cpu/kv_format.h"
#include "optiq/kernels/turbo.h"

namespace optiq::kernels::cpu {
namespace {

static_assert(kMaxHeadDim == kMaxPackedHeadDim);
static_assert(kBlockTokens == kKvBlockTokens);

/** What a format's blocks are on the CPU, with the rotations it points into. */
struct CpuKvLayout final : kernels::KvLayout {
  std::optional<Rotation> key_rotation;
  std::optional<Rotation> value_rotation;
  cpu::KvLayout layout;
};

KvSide side_of(const KvFormat& format, double bits, std::size_t pad) {
  KvSide side;
  side.head_dim = static_cast<std::size_t>(format.head_dim);
  if (format.codec.method == KvMethod::Dense || bits == 0) {
    side.code =
        format.dtype == mx::float32 ? KvCode::Float32 : KvCode::BFloat16;
    side.dims = side.head_dim;
    return side;
  }
  side.dims = round_up(side.head_dim, pad);
  side.bits = static_cast<std::size_t>(bits);
  if (format.codec.method == KvMethod::Affine) {
    side.code = KvCode::Affine;
    side.group = static_cast<std::size_t>(format.codec.group_size);
    return side;
  }
  side.code = KvCode::Turbo;
  side.table = &code_table(static_cast<int>(side.bits));
  if (bits != std::floor(bits)) {
    // Half of the channels, in whole chunks: never above the nominal width.
    side.wide = side.head_dim / 64 * 32;
    side.wide_table = &code_table(static_cast<int>(side.bits) + 1);
  }
  return side;
}

} // namespace

KvFormat kv_format(KvFormat format) {
  check_kv_format(format);
  auto made = std::make_shared<CpuKvLayout>();
  // Lanes of values are channels, 16 to a panel; keys take them in chunks.
  KvLayout& layout = made->layout;
  layout = {
      .n_kv_heads = static_cast<std::size_t>(format.n_kv_heads),
      .head_dim = static_cast<std::size_t>(format.head_dim),
      .exact = format.compute == Compute::Exact,
      .key = side_of(format, format.codec.key_bits, 32),
      .value = side_of(format, format.codec.value_bits, 16)};
  if (format.codec.method == KvMethod::Turbo) {
    layout.key.rotation =
        made->key_rotation
            .emplace(format.codec.rotation, format.head_dim, format.codec.seed)
            .view();
    layout.value.rotation = made->value_rotation
                                .emplace(
                                    format.codec.rotation,
                                    format.head_dim,
                                    format.codec.seed + kKvValueSeedStep)
                                .view();
  }
  made->block_bytes = layout.block_bytes();
  format.layout = std::move(made);
  return format;
}

const KvLayout& layout_of(const char* function, const KvFormat& format) {
  const auto* made = dynamic_cast<const CpuKvLayout*>(format.layout.get());
  if (made == nullptr) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] format: found no layout of its blocks on the CPU, expected one. "
        "Make the format with Device::kv_format.",
        function);
  }
  return made->layout;
}

} // namespace optiq::kernels::cpu
