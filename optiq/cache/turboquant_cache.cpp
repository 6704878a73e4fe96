#include "optiq/cache/turboquant_cache.h"

#include <array>

#include <mlx/ops.h>

#include "optiq/base/error.h"
#include "optiq/kernels/cpu/operations.h"

namespace optiq::cache {

TurboQuantKvCache::TurboQuantKvCache(
    int head_dim,
    float bits,
    std::uint64_t seed,
    const TurboQuantOptions& options)
    : format_(kernels::cpu_device().kv_format(
          {.n_kv_heads = options.n_kv_heads,
           .head_dim = head_dim,
           .codec =
               {.method = kernels::KvMethod::Turbo,
                .key_bits = bits,
                .value_bits = bits,
                .rotation = options.rotation,
                .seed = seed},
           .compute = options.compute})),
      pool_(std::make_shared<BlockPool>(options.max_bytes)),
      sequence_(std::make_unique<Sequence>(
          pool_,
          std::vector<LayerFormat>{format_})) {}

void TurboQuantKvCache::append(const mx::array& k, const mx::array& v) {
  const int rows = k.ndim() == 0 ? 0 : k.shape(0);
  const int start = length();
  sequence_->reserve(start + rows);
  const std::array<kernels::Segment, 1> segments{
      {{.first_row = 0,
        .rows = rows,
        .start = start,
        .blocks = sequence_->blocks(0)}}};
  kernels::cpu::append_kv(k, v, segments, format_);
  sequence_->commit(rows);
}

mx::array TurboQuantKvCache::attend(const mx::array& q, float scale) const {
  const int rows = q.ndim() == 0 ? 0 : q.shape(0);
  if (rows > length()) {
    fail(
        ErrorKind::InvalidInput,
        "[TurboQuantKvCache::attend] q: found {} rows, expected at most the {} "
        "tokens held. Append their keys and values first.",
        rows,
        length());
  }
  const std::array<kernels::Segment, 1> segments{
      {{.first_row = 0,
        .rows = rows,
        .start = length() - rows,
        .blocks = sequence_->blocks(0)}}};
  const mx::array none =
      mx::zeros({0, format_.n_kv_heads, format_.head_dim}, mx::float32);
  return kernels::cpu::append_and_attend(
      q, none, none, segments, format_, {.scale = scale});
}

} // namespace optiq::cache
