#include "optiq/kernels/cpu/attention.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "hwy/aligned_allocator.h"

#include "optiq/base/thread_pool.h"
#include "optiq/kernels/cpu/parallel_by_cost.h"
#include "optiq/kernels/kernels.h"
#include "optiq/kernels/profile.h"
#include "optiq/kernels/sequence_checks_impl.h"

namespace optiq::kernels {
namespace {

static_assert(cpu::kBlockTokens == kKvBlockTokens);

// Multiply-adds (or copied values) below which waking a thread does not pay.
constexpr std::size_t kMinCost = 1 << 16;

cpu::AttentionShape
check_format(const mx::array& q, const KvFormat& format, float scale) {
  require_rank("append_and_attend", "q", q, 3);
  const int n_heads = q.shape(1);
  if (format.dtype != mx::float32 && format.dtype != mx::bfloat16) {
    fail(
        ErrorKind::InvalidInput,
        "[append_and_attend] format: found KV elements of {} bytes that are "
        "neither float32 nor bfloat16. Choose one of these.",
        mx::size_of(format.dtype));
  }
  if (format.n_kv_heads <= 0 || n_heads <= 0 ||
      n_heads % format.n_kv_heads != 0 || format.head_dim <= 0 ||
      q.shape(2) != format.head_dim) {
    fail(
        ErrorKind::InvalidInput,
        "[append_and_attend] q: found shape [{}], expected [T, a multiple of "
        "{} heads, {}]. Pass q in the format's head shape.",
        fmt::join(q.shape(), ", "),
        format.n_kv_heads,
        format.head_dim);
  }
  if (format.window < 0) {
    fail(
        ErrorKind::InvalidInput,
        "[append_and_attend] format: found a window of {} tokens, expected 0 "
        "for all or at least 1. Pass how many tokens a query sees.",
        format.window);
  }
  return {
      .n_heads = static_cast<std::size_t>(n_heads),
      .n_kv_heads = static_cast<std::size_t>(format.n_kv_heads),
      .head_dim = static_cast<std::size_t>(format.head_dim),
      .type = format.dtype == mx::float32 ? cpu::KvType::Float32
                                          : cpu::KvType::BFloat16,
      .scale = scale,
      .window = static_cast<std::size_t>(format.window)};
}

/** The segments follow each other without gaps and their blocks are there. */
void check_segments(
    std::span<const AttentionSegment> segments,
    int rows,
    const cpu::AttentionShape& shape) {
  int next = 0;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const AttentionSegment& s = segments[i];
    if (s.first_row != next || s.rows < 0 || s.rows > rows - next ||
        s.start < 0) {
      fail(
          ErrorKind::InvalidInput,
          "[append_and_attend] segment {}: found rows {} + {} at position {}, "
          "expected them to follow row {} within {} rows. Order the segments.",
          i,
          s.first_row,
          s.rows,
          s.start,
          next,
          rows);
    }
    const std::size_t tokens =
        static_cast<std::size_t>(s.start) + static_cast<std::size_t>(s.rows);
    if (s.blocks.size() * kKvBlockTokens < tokens) {
      fail(
          ErrorKind::InvalidInput,
          "[append_and_attend] segment {}: found {} blocks of {} tokens, "
          "expected room for {} tokens. Reserve the sequence first.",
          i,
          s.blocks.size(),
          kKvBlockTokens,
          tokens);
    }
    const std::size_t end = (tokens + kKvBlockTokens - 1) / kKvBlockTokens;
    std::size_t block = shape.first_seen(s.start) / kKvBlockTokens;
    while (block < end && s.blocks[block] != nullptr) {
      ++block;
    }
    if (s.rows > 0 && block < end) {
      fail(
          ErrorKind::InvalidInput,
          "[append_and_attend] segment {}: found no block for position {}, "
          "expected one wherever a row of {} to {} sees. Reserve the sequence "
          "first, and keep the blocks inside the window.",
          i,
          block * kKvBlockTokens,
          s.start,
          tokens);
    }
    next += s.rows;
  }
  if (next != rows) {
    fail(
        ErrorKind::InvalidInput,
        "[append_and_attend] segments: found {} rows in all, expected the {} "
        "of q. Cover every row.",
        next,
        rows);
  }
}

struct Work {
  std::vector<cpu::AttentionTile> tiles;
  std::vector<std::size_t> costs;
};

/** Tiles of at most `tile_rows` rows; the cost of one is its rows times the
 * tokens each of them costs, `cost_of(tile)`. */
template <class Cost>
Work split_work(
    std::span<const AttentionSegment> segments,
    std::size_t n_kv_heads,
    std::size_t tile_rows,
    const Cost& cost_of) {
  Work work;
  for (const AttentionSegment& s : segments) {
    const auto rows = static_cast<std::size_t>(s.rows);
    for (std::size_t head = 0; head < n_kv_heads; ++head) {
      for (std::size_t at = 0; at < rows; at += tile_rows) {
        const cpu::AttentionTile tile{
            .first_row = s.first_row + at,
            .rows = std::min(tile_rows, rows - at),
            .start = s.start + at,
            .kv_head = head,
            .blocks = s.blocks};
        work.tiles.push_back(tile);
        work.costs.push_back(cost_of(tile));
      }
    }
  }
  return work;
}

} // namespace

mx::array append_and_attend(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    std::span<const AttentionSegment> segments,
    const KvFormat& format,
    float scale) {
  const OpTimer timer("append_and_attend");
  const cpu::AttentionShape shape = check_format(q, format, scale);
  const bool appends = k.shape(0) > 0 || v.shape(0) > 0;
  const mx::Shape kv_shape{
      appends ? q.shape(0) : 0, format.n_kv_heads, format.head_dim};
  const mx::array queries = io::materialize(q);
  const mx::array keys = require_floats("append_and_attend", "k", k, kv_shape);
  const mx::array values =
      require_floats("append_and_attend", "v", v, kv_shape);
  check_segments(segments, q.shape(0), shape);

  const float* kp = io::floats(keys).data();
  const float* vp = io::floats(values).data();
  const Work append = split_work(
      appends ? segments : std::span<const AttentionSegment>{},
      shape.n_kv_heads,
      kKvBlockTokens,
      [&](const cpu::AttentionTile& tile) {
        return 2 * tile.rows * shape.head_dim;
      });
  cpu::parallel_by_cost(
      append.costs,
      kMinCost,
      [&](std::size_t, std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
          cpu::append_kv(kp, vp, shape, append.tiles[i]);
        }
      });

  mx::array out = io::make_array(q.shape(), mx::float32);
  const float* qp = io::floats(queries).data();
  float* target = io::mutable_floats(out).data();
  const Work attention = split_work(
      segments,
      shape.n_kv_heads,
      cpu::attention_tile_rows(shape),
      [&](const cpu::AttentionTile& tile) {
        const std::size_t tokens =
            tile.start + tile.rows - shape.first_seen(tile.start);
        return tile.rows * tokens * shape.group() * shape.head_dim;
      });
  const std::size_t per_rank = cpu::attention_scratch_floats(shape);
  const auto scratch =
      hwy::AllocateAligned<float>(per_rank * ThreadPool::shared().size());
  if (!scratch) {
    fail(
        ErrorKind::Exhausted,
        "[append_and_attend] q [{}]: no memory for {} floats of scratch per "
        "thread. Use fewer threads.",
        fmt::join(q.shape(), ", "),
        per_rank);
  }
  cpu::parallel_by_cost(
      attention.costs,
      kMinCost,
      [&](std::size_t rank, std::size_t begin, std::size_t end) {
        float* mine = scratch.get() + rank * per_rank;
        for (std::size_t i = begin; i < end; ++i) {
          cpu::attend(qp, shape, attention.tiles[i], mine, target);
        }
      });
  return out;
}

} // namespace optiq::kernels
