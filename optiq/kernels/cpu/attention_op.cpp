#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "hwy/aligned_allocator.h"

#include "optiq/base/thread_pool.h"
#include "optiq/kernels/checks_impl.h"
#include "optiq/kernels/cpu/attention.h"
#include "optiq/kernels/cpu/kv_append.h"
#include "optiq/kernels/cpu/kv_format.h"
#include "optiq/kernels/cpu/operations.h"
#include "optiq/kernels/cpu/parallel_by_cost.h"
#include "optiq/kernels/profile.h"
#include "optiq/kernels/segment_checks.h"

namespace optiq::kernels::cpu {
namespace {

// Multiply-adds (or copied values) below which waking a thread does not pay.
constexpr std::size_t kMinCost = 1 << 16;
// What coding a value costs, in multiply-adds.
constexpr std::size_t kCodeCost = 16;
// Tiles of at most so many queries keep the partials of their spans, so that
// threads can share a long context out; larger ones add them up as they go.
constexpr std::size_t kSharedQueries = 16;

/** The format's shape, for this many query heads. */
AttentionShape
shape_of(const char* function, int n_heads, const KvFormat& format) {
  AttentionShape shape{
      .n_heads = static_cast<std::size_t>(n_heads),
      .layout = layout_of(function, format),
      .window = static_cast<std::size_t>(format.window)};
  shape.units = key_units(shape.layout.key);
  return shape;
}

AttentionShape check_query(
    const char* function,
    const mx::array& q,
    const KvFormat& format,
    const ScoreRule& rule) {
  require_rank(function, "q", q, 3);
  const int n_heads = q.shape(1);
  AttentionShape shape = shape_of(function, n_heads, format);
  if (n_heads <= 0 || n_heads % format.n_kv_heads != 0 ||
      q.shape(2) != format.head_dim) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] q: found shape [{}], expected [T, a multiple of {} heads, {}]. "
        "Pass q in the format's head shape.",
        function,
        fmt::join(q.shape(), ", "),
        format.n_kv_heads,
        format.head_dim);
  }
  if (!(rule.softcap >= 0.f)) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] rule: found a softcap of {}, expected 0 (none) or more. Pass the "
        "model's.",
        function,
        rule.softcap);
  }
  shape.scale = rule.scale;
  shape.softcap = rule.softcap;
  return shape;
}

/** k and v, evaluated. */
std::pair<mx::array, mx::array> check_kv(
    const char* function,
    const mx::array& k,
    const mx::array& v,
    int rows,
    const KvFormat& format) {
  const mx::Shape shape{rows, format.n_kv_heads, format.head_dim};
  return {
      require_floats(function, "k", k, shape),
      require_floats(function, "v", v, shape)};
}

struct Work {
  std::vector<AttentionTile> tiles;
  std::vector<std::size_t> costs;
};

/** Runs body(i) for every item, shared out by cost; `rank` is the thread. */
template <class Body>
void run_by_cost(const std::vector<std::size_t>& costs, const Body& body) {
  parallel_by_cost(
      costs,
      kMinCost,
      [&](std::size_t rank, std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
          body(rank, i);
        }
      });
}

/** Writes the new rows. Tiles end with their block: the tokens of a block share
 * bytes. */
void append_rows(
    const mx::array& k,
    const mx::array& v,
    const KvLayout& layout,
    std::span<const Segment> segments) {
  const std::size_t per_value =
      layout.key.packed() || layout.value.packed() ? kCodeCost : 1;
  const float* kp = io::floats(k).data();
  const float* vp = io::floats(v).data();
  Work work;
  for (const Segment& s : segments) {
    const auto rows = static_cast<std::size_t>(s.rows);
    const auto start = static_cast<std::size_t>(s.start);
    for (std::size_t head = 0; head < layout.n_kv_heads; ++head) {
      for (std::size_t at = 0; at < rows;) {
        const std::size_t room = kKvBlockTokens - (start + at) % kKvBlockTokens;
        const std::size_t n = std::min(room, rows - at);
        work.tiles.push_back(
            {.first_row = s.first_row + at,
             .rows = n,
             .start = start + at,
             .kv_head = head,
             .blocks = s.blocks});
        work.costs.push_back(2 * n * layout.head_dim * per_value);
        at += n;
      }
    }
  }
  run_by_cost(work.costs, [&](std::size_t, std::size_t i) {
    append_kv(kp, vp, layout, work.tiles[i]);
  });
}

/** Aligned memory of `floats`; throws Exhausted. */
hwy::AlignedFreeUniquePtr<float[]> scratch_of(std::size_t floats) {
  auto memory = hwy::AllocateAligned<float>(floats);
  if (!memory) {
    fail(
        ErrorKind::Exhausted,
        "[append_and_attend] no memory for {} floats of scratch. Use fewer "
        "threads or a smaller batch.",
        floats);
  }
  return memory;
}

/** The queries of all heads, as the kernels read them. */
class PreparedQueries {
 public:
  PreparedQueries(
      const float* q,
      std::size_t rows,
      const AttentionShape& shape) {
    const std::size_t heads = rows * shape.n_heads;
    const std::size_t dim = shape.layout.head_dim;
    const bool digits = needs_digits(shape);
    const std::size_t digit_floats = digits
        ? heads * shape.layout.digits() * shape.layout.key.dims / sizeof(float)
        : 0;
    const std::size_t factor_floats = digits
        ? heads * shape.units.size * sizeof(KeyFactors) / sizeof(float)
        : 0;
    const bool halves = needs_halves(shape);
    const std::size_t value_floats = heads * dim / (halves ? 2 : 1);
    memory_ = scratch_of(value_floats + digit_floats + factor_floats);
    if (halves) {
      queries_.halves = reinterpret_cast<std::uint16_t*>(memory_.get());
    } else {
      queries_.values = memory_.get();
    }
    if (digits) {
      float* const factors = memory_.get() + value_floats;
      queries_.factors = reinterpret_cast<KeyFactors*>(factors);
      queries_.digits = reinterpret_cast<std::int8_t*>(factors + factor_floats);
    }
    constexpr std::size_t kHeadsPerTask = 128;
    parallel_for(
        heads, kHeadsPerTask, [&](std::size_t first, std::size_t last) {
          prepare_queries(q, shape, first, last, queries_);
        });
  }

  const Queries& get() const {
    return queries_;
  }

 private:
  hwy::AlignedFreeUniquePtr<float[]> memory_;
  Queries queries_;
};

/** Spans of one tile that one thread takes. */
struct Item {
  std::size_t tile = 0;
  Spans spans;
  std::size_t partial = 0; // of the first span, in floats
  bool whole = false; // all spans of the tile: nothing is kept
};

/** What attention does for one call. */
struct Plan {
  std::vector<AttentionTile> tiles;
  std::vector<Item> items;
  std::vector<std::size_t> costs; // of items
  std::vector<std::size_t> shared; // tiles whose partials are added last
  std::vector<std::size_t> first_item; // of shared tiles
  std::size_t partial_floats = 0;
  std::size_t most_queries = 0; // of a tile
};

void plan_tile(
    const AttentionTile& tile,
    const AttentionShape& shape,
    Plan& plan) {
  const std::size_t n = tile.rows * shape.group();
  const Spans spans = spans_of(shape, tile);
  const std::size_t index = plan.tiles.size();
  plan.tiles.push_back(tile);
  plan.most_queries = std::max(plan.most_queries, n);
  const std::size_t per_token = n * shape.layout.head_dim;
  if (n > kSharedQueries || spans.first + 1 == spans.last) {
    const std::size_t tokens = tile.end() - shape.first_seen(tile.start);
    plan.items.push_back({.tile = index, .spans = spans, .whole = true});
    plan.costs.push_back(tokens * per_token);
    return;
  }
  plan.shared.push_back(index);
  plan.first_item.push_back(plan.items.size());
  for (std::size_t span = spans.first; span < spans.last; ++span) {
    const std::size_t end = std::min(tile.end(), (span + 1) * kSpanTokens);
    const std::size_t begin =
        std::max(shape.first_seen(tile.start), span * kSpanTokens);
    plan.items.push_back(
        {.tile = index,
         .spans = {span, span + 1},
         .partial = plan.partial_floats});
    plan.costs.push_back((end - begin) * per_token);
    plan.partial_floats += partial_floats(shape, n);
  }
}

Plan make_plan(std::span<const Segment> segments, const AttentionShape& shape) {
  Plan plan;
  const std::size_t tile_rows = attention_tile_rows(shape);
  for (const Segment& s : segments) {
    const auto rows = static_cast<std::size_t>(s.rows);
    for (std::size_t head = 0; head < shape.layout.n_kv_heads; ++head) {
      for (std::size_t at = 0; at < rows; at += tile_rows) {
        plan_tile(
            {.first_row = s.first_row + at,
             .rows = std::min(tile_rows, rows - at),
             .start = s.start + at,
             .kv_head = head,
             .blocks = s.blocks},
            shape,
            plan);
      }
    }
  }
  return plan;
}

/** Attention of everything planned. */
void run_plan(
    const Plan& plan,
    const AttentionShape& shape,
    const Queries& queries,
    float* out) {
  const std::size_t most = plan.most_queries;
  const std::size_t of_partial = partial_floats(shape, most);
  const std::size_t of_span = attention_scratch_floats(shape, most);
  const std::size_t per_rank = of_span + 2 * of_partial;
  const auto ranks = static_cast<std::size_t>(ThreadPool::shared().size());
  const auto memory = scratch_of(per_rank * ranks + plan.partial_floats);
  float* kept = memory.get() + per_rank * ranks;

  run_by_cost(plan.costs, [&](std::size_t rank, std::size_t i) {
    const Item& item = plan.items[i];
    const AttentionTile& tile = plan.tiles[item.tile];
    const std::size_t n = tile.rows * shape.group();
    float* scratch = memory.get() + rank * per_rank;
    if (!item.whole) {
      attend_span(
          queries,
          shape,
          tile,
          item.spans.first,
          scratch,
          partial_at(shape, n, kept + item.partial));
      return;
    }
    const auto part = partial_at(shape, n, scratch + of_span);
    const auto total = partial_at(shape, n, scratch + of_span + of_partial);
    attend_span(queries, shape, tile, item.spans.first, scratch, total);
    for (std::size_t s = item.spans.first + 1; s < item.spans.last; ++s) {
      attend_span(queries, shape, tile, s, scratch, part);
      add_partial(shape, n, part, total);
    }
    finish_tile(shape, tile, total, out);
  });

  std::vector<std::size_t> costs;
  for (const std::size_t index : plan.shared) {
    const AttentionTile& tile = plan.tiles[index];
    const Spans spans = spans_of(shape, tile);
    costs.push_back(
        (spans.last - spans.first) * tile.rows * shape.group() *
        shape.layout.head_dim);
  }
  run_by_cost(costs, [&](std::size_t, std::size_t i) {
    const AttentionTile& tile = plan.tiles[plan.shared[i]];
    const std::size_t n = tile.rows * shape.group();
    const Spans spans = spans_of(shape, tile);
    const std::size_t first = plan.first_item[i];
    const auto total = partial_at(shape, n, kept + plan.items[first].partial);
    for (std::size_t s = 1; s < spans.last - spans.first; ++s) {
      const Item& item = plan.items[first + s];
      add_partial(shape, n, partial_at(shape, n, kept + item.partial), total);
    }
    finish_tile(shape, tile, total, out);
  });
}

mx::array attend_rows(
    const mx::array& q,
    const AttentionShape& shape,
    std::span<const Segment> segments) {
  mx::array out = io::make_array(q.shape(), mx::float32);
  const PreparedQueries prepared(
      io::floats(q).data(), static_cast<std::size_t>(q.shape(0)), shape);
  run_plan(
      make_plan(segments, shape),
      shape,
      prepared.get(),
      io::mutable_floats(out).data());
  return out;
}

} // namespace

mx::array append_and_attend(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    std::span<const Segment> segments,
    const KvFormat& format,
    const ScoreRule& rule) {
  constexpr const char* kFunction = "append_and_attend";
  const OpTimer timer(kFunction);
  const AttentionShape shape = check_query(kFunction, q, format, rule);
  const bool appends = k.shape(0) > 0 || v.shape(0) > 0;
  const mx::array queries = io::materialize(q);
  const auto [keys, values] =
      check_kv(kFunction, k, v, appends ? q.shape(0) : 0, format);
  check_kv_segments(kFunction, segments, q.shape(0), format.window);
  if (appends) {
    append_rows(keys, values, shape.layout, segments);
  }
  return attend_rows(queries, shape, segments);
}

void append_kv(
    const mx::array& k,
    const mx::array& v,
    std::span<const Segment> segments,
    const KvFormat& format) {
  constexpr const char* kFunction = "append_kv";
  const OpTimer timer(kFunction);
  require_rank(kFunction, "k", k, 3);
  const AttentionShape shape = shape_of(kFunction, format.n_kv_heads, format);
  const auto [keys, values] = check_kv(kFunction, k, v, k.shape(0), format);
  check_kv_segments(kFunction, segments, k.shape(0), format.window);
  append_rows(keys, values, shape.layout, segments);
}

} // namespace optiq::kernels::cpu
