// Products of up to 16 rows. Blocks of threads go through tasks of two tiles of
// weights, and each warp through its spans of one of them; a ring in shared
// memory holds the spans on their way, also those of the next tasks.
#pragma once

#include "optiq/kernels/cuda/device/product_sums.cuh"

namespace optiq::kernels::cuda {
namespace {

constexpr int kTeams = 2; // of kWarps warps
#ifdef __CUDA_ARCH__
constexpr bool kHasLarge = has_large_shared(__CUDA_ARCH__ / 100);
#else
constexpr bool kHasLarge = false;
#endif
constexpr int kFewThreads = kTeams * kThreads;
static_assert(kFewThreads == kPrepareThreads);

/** Two tiles of weights, one for each team of warps: of a part two that follow
 * each other, or, gated, one of the first part and the same of the second. */
struct Task {
  int part;
  int tile;

  __device__ __forceinline__ Task(const Multiply& args, int index)
      : part(0), tile(index) {
    if (!args.is_gated) {
      int first = 0;
#pragma unroll
      for (int i = 1; i < kMostParts; ++i) {
        if (i < args.n_parts && index >= args.parts[i].first_block) {
          part = i;
          first = args.parts[i].first_block;
        }
      }
      tile = (index - first) * kTeams;
    }
  }
  __device__ __forceinline__ const MultiplyPart& part_of(
      const Multiply& args,
      int team) const {
    return args.parts[args.is_gated ? team : part];
  }
  /** A tile behind the last is computed again and not written. */
  __device__ __forceinline__ int tile_of(const Multiply& args, int team) const {
    return args.is_gated ? tile
                         : min(tile + team, tiles_of(args.parts[part].out) - 1);
  }
};

/** Copies a warp's spans into its ring, task by task. */
template <int kBits>
struct Loader {
  using Place = Stage<kBits>;
  const Multiply& args;
  int each; // params of a row in a span
  int spans;
  int task;
  int span;
  const char* codes; // of the lane
  const char* params;
  int rows_left; // dense: of the tile, from the lane's first on

  __device__ __forceinline__ Loader(const Multiply& of, int params_each)
      : args(of), each(params_each), spans(spans_of(of.in)), task(blockIdx.x) {
    if (static_cast<int>(threadIdx.x) / 32 % kWarps >= spans) {
      task = of.n_blocks; // fewer spans than warps
    }
    begin();
  }
  __device__ __forceinline__ void begin() {
    span = static_cast<int>(threadIdx.x) / 32 % kWarps;
    if (task >= args.n_blocks) {
      return;
    }
    const int lane = threadIdx.x % 32;
    const int team = static_cast<int>(threadIdx.x) / 32 / kWarps;
    const Task of(args, task);
    const MultiplyPart& part = of.part_of(args, team);
    const int tile = of.tile_of(args, team);
    const auto* weight = reinterpret_cast<const char*>(part.weight);
    if constexpr (kBits == kDense) {
      const int row = tile * kTileRows + lane / 16;
      rows_left = part.out - row;
      codes = weight +
          2 *
              (static_cast<std::int64_t>(row) * args.in + span * kSpanColumns +
               lane % 16 * 8);
    } else {
      const std::int64_t at = static_cast<std::int64_t>(tile) * spans + span;
      codes = weight + at * Place::kCodeBytes + 16 * lane;
      params = reinterpret_cast<const char*>(part.params) +
          at * (4 * kTileRows * each) + 16 * lane;
    }
  }
  /** The next span; nothing behind the last one. */
  __device__ __forceinline__ void load(char* stage) {
    if (task < args.n_blocks) {
      copy_span(stage);
      span += kWarps;
      if (span >= spans) {
        task += static_cast<int>(gridDim.x);
        begin();
      }
    }
    end_copies();
  }
  __device__ __forceinline__ void copy_span(char* stage) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < Place::kQuads; i += kLanes) {
      char* to = stage + 16 * Place::place_of(i + lane);
      if constexpr (kBits == kDense) {
        const bool is_wanted =
            i / 16 < rows_left && span * kSpanColumns + lane % 16 * 8 < args.in;
        const std::int64_t rows = i / 16;
        copy16(to, is_wanted ? codes + rows * 2 * args.in : codes, is_wanted);
      } else if (i + kLanes <= Place::kQuads || i + lane < Place::kQuads) {
        copy16(to, codes + 16 * i);
      }
    }
    if constexpr (kBits == kDense) {
      codes += kWarps * kSpanColumns * 2;
    } else {
      if (lane < 4 * each) {
        copy16(stage + Place::kCodeBytes + 16 * lane, params);
      }
      codes += kWarps * Place::kCodeBytes;
      params += kWarps * 4 * kTileRows * each;
    }
  }
};

/** The digits of a single row in shared memory: digits, then their sums. */
template <int kBits, bool kExact>
__device__ __forceinline__ Rows<1>
own_row(const PrepareRows& args, char* memory, float& scale) {
  auto* digits = reinterpret_cast<std::uint16_t*>(memory);
  const RowDigits to{
      digits,
      args.padded,
      reinterpret_cast<float*>(
          digits + static_cast<long long>(args.n_digits) * args.padded)};
  RowBatch batch;
  const RowForm form = form_of_usual(args.x, args, batch);
  write_usual<digits_of(kBits, kExact), kBits != kDense>(
      args, args.x, form, batch, to);
  __syncthreads();
  scale = inverse_scale(form.scale);
  return Rows<1>(to.digits, to.stride, 0, to.sums, 0, 1, 0, threadIdx.x % 32);
}

/** Rows as they are on the card, or copied into shared memory, where rows begin
 * in different banks. */
template <int kTokenTiles>
__device__ __forceinline__ Rows<kTokenTiles>
prepared_rows(const Multiply& args, int n_digits, char* memory) {
  const int lane = threadIdx.x % 32;
  const int padded = padded_columns(args.in);
  const int sums_each = padded / kChunkColumns;
  if (!args.shares_rows) {
    return Rows<kTokenTiles>(
        args.digits,
        static_cast<long long>(args.rows) * padded,
        padded,
        args.sums,
        sums_each,
        args.rows,
        0,
        lane);
  }
  const int stride = padded + kFewPadding;
  const int sums_stride = sums_each + kFewSumsPadding;
  auto* digits = reinterpret_cast<std::uint16_t*>(memory);
  auto* sums = reinterpret_cast<float*>(digits + n_digits * args.rows * stride);
  for (int row = threadIdx.x / 32; row < n_digits * args.rows;
       row += kFewThreads / 32) {
    for (int i = 8 * lane; i < padded; i += 8 * 32) {
      copy16(
          digits + row * stride + i,
          args.digits + static_cast<long long>(row) * padded + i);
    }
  }
  for (int row = threadIdx.x / 32; row < args.rows; row += kFewThreads / 32) {
    for (int i = 4 * lane; i < sums_each; i += 4 * 32) {
      copy16(
          sums + row * sums_stride + i,
          args.sums + static_cast<long long>(row) * sums_each + i);
    }
  }
  end_copies();
  await_copies<0>();
  __syncthreads();
  return Rows<kTokenTiles>(
      digits,
      static_cast<long long>(args.rows) * stride,
      stride,
      sums,
      sums_stride,
      args.rows,
      0,
      lane);
}

/** What a result of a single row is added to. It is asked for before the sums
 * are made. */
struct AddedToRow {
  float bias = 0.f;
  float up_bias = 0.f;
  float residual = 0.f;

  __device__ __forceinline__ AddedToRow(const Multiply& args, int index) {
    const Task task(args, index);
    const int output = static_cast<int>(threadIdx.x) % kTileRows;
    const int team = static_cast<int>(threadIdx.x) / kTileRows;
    const int at = (task.tile + team) * kTileRows + output;
    const MultiplyPart& part = task.part_of(args, 0);
    if (team >= (args.is_gated ? 1 : kTeams) || at >= part.out) {
      return;
    }
    if (part.bias != nullptr) {
      bias = part.bias[at];
    }
    if (args.is_gated && args.parts[1].bias != nullptr) {
      up_bias = args.parts[1].bias[at];
    }
    if (!args.is_gated && part.residual != nullptr) {
      residual = part.residual[at];
    }
  }
};

/** activation(gate) up. */
__device__ __forceinline__ float
gated(const Multiply& args, float gate, float up) {
  return (args.activation == Elementwise::Silu ? silu(gate) : gelu_tanh(gate)) *
      up;
}

/** What comes of a task's sums for a single row: a thread for each result. */
__device__ __forceinline__ void finish_row(
    const Multiply& args,
    const Task& task,
    const Partial<1, 1> (&sums)[kTeams][kWarps],
    float scale,
    const AddedToRow& added) {
  const int output = static_cast<int>(threadIdx.x) % kTileRows;
  const int team = static_cast<int>(threadIdx.x) / kTileRows;
  const int at = (task.tile + team) * kTileRows + output;
  const MultiplyPart& part = task.part_of(args, 0);
  if (team >= (args.is_gated ? 1 : kTeams) || at >= part.out) {
    return;
  }
  const float y = sum_of_warps(sums[team], 0, output, scale) + added.bias;
  if (args.is_gated) {
    const float up = sum_of_warps(sums[1], 0, output, scale) + added.up_bias;
    args.parts[1].y[at] = gated(args, y, up);
  } else {
    part.y[at] = part.residual != nullptr ? added.residual + y : y;
  }
}

/** The same of several rows. */
template <int kTokens>
__device__ __forceinline__ void finish_task(
    const Multiply& args,
    const Task& task,
    const Partial<kTokens, 1> (&sums)[kTeams][kWarps]) {
  const int each = args.is_gated ? kTileRows : kTileRows * kTeams;
  for (int i = threadIdx.x; i < args.rows * each; i += kFewThreads) {
    const int token = i / each;
    const int output = i % kTileRows;
    const int team = args.is_gated ? 0 : i / kTileRows % kTeams;
    const int at = (task.tile + team) * kTileRows + output;
    const MultiplyPart& part = task.part_of(args, 0);
    if (at >= part.out) {
      continue;
    }
    const float scale = args.scales[token];
    const float y = sum_of_warps(sums[team], token, output, scale);
    if (!args.is_gated) {
      write_result(part, token, at, y);
      continue;
    }
    const MultiplyPart& of_up = args.parts[1];
    const float gate = y + (part.bias != nullptr ? part.bias[at] : 0.f);
    const float up = sum_of_warps(sums[1], token, output, scale) +
        (of_up.bias != nullptr ? of_up.bias[at] : 0.f);
    of_up.y[static_cast<long long>(token) * of_up.out + at] =
        gated(args, gate, up);
  }
}

/** Sums of a block's warps for a task, and, where there is room, for the next
 * one: a warp that is ahead writes the other set. */
template <int kTokenTiles, bool kOwn>
struct Partials {
  static constexpr int kSets = kTokenTiles == 1 ? 2 : 1;
  using Sums = Partial<kOwn ? 1 : 8 * kTokenTiles, 1>;
  Sums sets[kSets][kTeams][kWarps];
};

template <int kBits, bool kExact, int kTokenTiles, bool kOwn, class OfGroups>
__device__ __forceinline__ void multiply_few_of(
    const Multiply& args,
    const OfGroups& groups,
    Partials<kTokenTiles, kOwn>& partials) {
  using Place = Stage<kBits>;
  constexpr int kStages = few_stages(kBits, 8 * kTokenTiles, kHasLarge);
  constexpr int kSets = Partials<kTokenTiles, kOwn>::kSets;
  extern __shared__ uint4 few_memory[];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int each = span_params(groups.shift);
  const int spans = spans_of(args.in);
  const int stage_bytes = Place::bytes(each);
  char* ring =
      reinterpret_cast<char*>(few_memory) + warp * kStages * stage_bytes;
  char* end = ring + kStages * stage_bytes;
  Loader<kBits> loader(args, each);
  char* empty = ring;
#pragma unroll 1
  for (int i = 0; i < kStages - 1; ++i) {
    loader.load(empty);
    empty += stage_bytes;
  }
  await_previous(); // weights are on their way for long, rows are not
  float own_scale = 1.f;
  const Rows<kTokenTiles> x = [&] {
    char* behind = reinterpret_cast<char*>(few_memory) +
        kTeams * kWarps * kStages * stage_bytes;
    if constexpr (kOwn) {
      return own_row<kBits, kExact>(args.own, behind, own_scale);
    } else {
      return prepared_rows<kTokenTiles>(args, digits_of(kBits, kExact), behind);
    }
  }();
  char* stage = ring;
  int set = 0;
  for (int index = blockIdx.x; index < args.n_blocks; index += gridDim.x) {
    float acc[1][kTokenTiles][4] = {};
    [[maybe_unused]] const auto added = [&] {
      if constexpr (kOwn) {
        return AddedToRow(args, index);
      } else {
        return 0;
      }
    }();
    for (int span = warp % kWarps; span < spans; span += kWarps) {
      await_copies<kStages - 2>();
      __syncwarp(); // other lanes' copies are there, the last stage is read
      // Before more copies are asked for: a tenth of a product's time.
      Weights<kBits, kExact> weights[1];
      weights[0].read(stage, each);
      loader.load(empty);
      const auto more_params = [&](int, int row) {
        return Place::params_of(stage, row_of(lane, row), each, 2);
      };
      multiply_span<kBits, kExact>(x, span, groups, weights, more_params, acc);
      empty = stage;
      stage += stage_bytes;
      stage = stage == end ? ring : stage;
    }
    auto& sums = partials.sets[set];
    if (kSets == 1) {
      __syncthreads(); // who still reads the last task's
    }
    sums[warp / kWarps][warp % kWarps].write(acc, kOwn ? 1 : args.rows, lane);
    __syncthreads();
    if constexpr (kOwn) {
      finish_row(args, Task(args, index), sums, own_scale, added);
    } else {
      finish_task(args, Task(args, index), sums);
    }
    set = (set + 1) % kSets;
  }
}

/** Up to 8 kTokenTiles rows; kOwn: one, which the block prepares. */
template <int kBits, bool kExact, int kTokenTiles, bool kOwn>
__device__ __forceinline__ void multiply_few(const Multiply& args) {
  __shared__ Partials<kTokenTiles, kOwn> partials;
  allow_next();
  const Groups groups{args.parts[0].group_shift, args.parts[0].param_type};
  if (kBits == kDense ||
      (groups.shift > 0 && groups.type == Number::BFloat16)) {
    multiply_few_of<kBits, kExact, kTokenTiles, kOwn>(
        args, UsualGroups{}, partials);
  } else {
    multiply_few_of<kBits, kExact, kTokenTiles, kOwn>(args, groups, partials);
  }
}

} // namespace
} // namespace optiq::kernels::cuda
