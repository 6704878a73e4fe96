// Products of up to 16 rows. Blocks of threads go through tasks of one or two
// tiles of weights, and each warp through its spans of one of them; a ring in
// shared memory holds the spans on their way, also those of the next tasks. Of
// a single row, which every block prepares for itself, a warp begins with its
// columns as soon as these have digits, and one more warp adds up and writes
// what the others have.
#pragma once

#include "optiq/kernels/cuda/device/product_ring.cuh"

namespace optiq::kernels::cuda {
namespace {

/** What a block's warps leave for each other: of sums a set for a task and,
 * where there is room, one for the next, which a warp that is ahead writes. */
template <int kTokenTiles, bool kOwn>
struct FewShared {
  static constexpr int kSets = kTokenTiles == 1 ? 2 : 1;
  static constexpr int kTokens = kOwn ? 1 : 8 * kTokenTiles;
  using Sums = Partial<kTokens, 1>;
  Sums sums[kSets][kTeams][kWarps];
  RowScales scales[kTokens];
  Found found[kPrepareWarps]; // of a row that the block prepares
};

/** Digits of a single row, then their sums, in `memory`. The two warps that
 * multiply the same columns prepare these, and wait for nobody else: what the
 * norm takes of the others is left to the result. */
template <bool kExact>
__device__ __forceinline__ Rows<1> own_row(
    const PrepareRows& args,
    RowBatch& batch,
    FewShared<1, true>& shared,
    char* memory) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  auto* digits = reinterpret_cast<std::uint16_t*>(memory);
  const RowDigits to{
      digits,
      args.padded,
      reinterpret_cast<float*>(
          digits + static_cast<long long>(args.n_digits) * args.padded)};
  const Found found = find_usual(args.x, args, batch);
  const float largest = warp_largest(found.largest);
  if (lane == 0) {
    shared.found[warp].largest = largest;
  }
  meet_other_team();
  const float scale = share_scale(args, shared.found, warp % kWarps);
  if (lane == 0 && warp < kShares) {
    shared.scales[0].shares[warp] = inverse_scale(scale);
  }
  write_usual<digits_of(kExact)>(args, args.x, scale, batch, to);
  const float squares = warp_sum(found.squares);
  if (lane == 0) {
    shared.found[warp].squares = squares;
  }
  meet_other_team();
  return Rows<1>(to.digits, to.stride, 0, to.sums, 0, 1, 0, lane);
}

/** Rows as they are on the card, or copied into shared memory, where rows begin
 * in different banks. */
template <int kTokenTiles>
__device__ __forceinline__ Rows<kTokenTiles> prepared_rows(
    const Multiply& args,
    int n_digits,
    FewShared<kTokenTiles, false>& shared,
    char* memory) {
  const int lane = threadIdx.x % 32;
  if (threadIdx.x < args.rows) {
    shared.scales[threadIdx.x] = args.row_scales[threadIdx.x];
  }
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
  meet_all();
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

/** Results of a task for each row. */
__device__ __forceinline__ int outputs_of(const Multiply& args) {
  return args.is_gated ? kTileRows : kTileRows * args.n_tiles;
}

/** What a result of a single row is added to. It is asked for before the sums
 * are made. */
struct AddedToRow {
  float bias = 0.f;
  float up_bias = 0.f;
  float residual = 0.f;

  __device__ __forceinline__
  AddedToRow(const Multiply& args, const Task& task) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int at = task.tile * kTileRows + lane;
    const MultiplyPart& part = task.part_of(args, 0);
    if (lane >= outputs_of(args) || at >= part.out) {
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

/** What comes of a task's sums for a single row: a lane for each result. */
__device__ __forceinline__ void finish_row(
    const Multiply& args,
    const Task& task,
    const Partial<1, 1> (&sums)[kTeams][kWarps],
    const RowScales& scales,
    const AddedToRow& added) {
  static_assert(kTeams * kTileRows == kLanes);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int output = lane % kTileRows;
  const int at = task.tile * kTileRows + lane;
  const MultiplyPart& part = task.part_of(args, 0);
  if (lane >= outputs_of(args) || at >= part.out) {
    return;
  }
  const float y =
      sum_of_warps(sums[lane / kTileRows], 0, output, scales, part) +
      added.bias;
  if (args.is_gated) {
    const MultiplyPart& of_up = args.parts[1];
    const float up =
        sum_of_warps(sums[1], 0, output, scales, of_up) + added.up_bias;
    of_up.y[at] = gated(args, y, up);
  } else {
    part.y[at] = part.residual != nullptr ? added.residual + y : y;
  }
}

/** The same of all tasks, by one warp, while others multiply on. */
__device__ __forceinline__ void finish_row_of_tasks(
    const Multiply& args,
    FewShared<1, true>& shared) {
  constexpr int kThreadsThatMeet = kFewThreads + kLanes;
  const int step = static_cast<int>(gridDim.x);
  RowScales scales;
  int set = 0;
  for (int index = blockIdx.x; index < args.n_blocks; index += step) {
    const Task task(args, index);
    const AddedToRow added(args, task);
    meet<kThreadsThatMeet>(kSumsFull + set);
    if (index == static_cast<int>(blockIdx.x)) {
      scales = shared.scales[0];
      scales.factor = norm_factor(args.own, shared.found);
    }
    finish_row(args, task, shared.sums[set], scales, added);
    if (index + 2 * step < args.n_blocks) {
      pass<kThreadsThatMeet>(kSumsEmpty + set);
    }
    set ^= 1;
  }
}

/** The same of several rows. */
template <int kTokens>
__device__ __forceinline__ void finish_task(
    const Multiply& args,
    const Task& task,
    const Partial<kTokens, 1> (&sums)[kTeams][kWarps],
    const RowScales (&all_scales)[kTokens]) {
  const int each = outputs_of(args);
  for (int i = threadIdx.x; i < args.rows * each; i += kFewThreads) {
    const int token = i / each;
    const int output = i % kTileRows;
    const int team = i % each / kTileRows;
    const int at = (task.tile + team) * kTileRows + output;
    const MultiplyPart& part = task.part_of(args, 0);
    if (at >= part.out) {
      continue;
    }
    const RowScales& scales = all_scales[token];
    const float y = sum_of_warps(sums[team], token, output, scales, part);
    if (!args.is_gated) {
      write_result(part, token, at, y);
      continue;
    }
    const MultiplyPart& of_up = args.parts[1];
    const float gate = y + (part.bias != nullptr ? part.bias[at] : 0.f);
    const float up = sum_of_warps(sums[1], token, output, scales, of_up) +
        (of_up.bias != nullptr ? of_up.bias[at] : 0.f);
    of_up.y[static_cast<long long>(token) * of_up.out + at] =
        gated(args, gate, up);
  }
}

/** A warp's share of a task. */
template <int kBits, bool kExact, int kTokenTiles, class OfGroups, class Ring>
__device__ __forceinline__ void multiply_share(
    int spans,
    const OfGroups& groups,
    Ring& ring,
    const Rows<kTokenTiles>& x,
    float (&acc)[1][kTokenTiles][4]) {
  int span = static_cast<int>(threadIdx.x) / 32 % kWarps;
  for (int left = ring.spans_of_warp(spans); left > 0; --left) {
    Weights<kBits, kExact> weights[1];
    ring.take(weights[0], span_params(groups.shift));
    if (span < spans) {
      const auto more_params = [&](int, int row) {
        return weights[0].more_params[row];
      };
      multiply_span<kBits, kExact>(x, span, groups, weights, more_params, acc);
    }
    span += kWarps;
  }
}

/** A single row: a warp does not wait until others have their sums. */
template <int kBits, bool kExact, class OfGroups, class Ring>
__device__ __forceinline__ void multiply_own(
    const Multiply& args,
    const OfGroups& groups,
    Ring& ring,
    const Rows<1>& x,
    FewShared<1, true>& shared) {
  constexpr int kThreadsThatMeet = kFewThreads + kLanes;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int swap = Ring::Place::swap_of(lane);
  const int spans = spans_of(args.in);
  const int step = static_cast<int>(gridDim.x);
  int set = 0;
  for (int index = blockIdx.x; index < args.n_blocks; index += step) {
    float acc[1][1][4] = {};
    multiply_share<kBits, kExact>(spans, groups, ring, x, acc);
    if (index >= 2 * step) { // not the first of the set
      meet<kThreadsThatMeet>(kSumsEmpty + set);
    }
    shared.sums[set][warp / kWarps][warp % kWarps].write(acc, 1, lane, swap);
    pass<kThreadsThatMeet>(kSumsFull + set);
    set ^= 1;
  }
}

/** Several rows: all who multiply write results. */
template <int kBits, bool kExact, int kTokenTiles, class OfGroups, class Ring>
__device__ __forceinline__ void multiply_several(
    const Multiply& args,
    const OfGroups& groups,
    Ring& ring,
    const Rows<kTokenTiles>& x,
    FewShared<kTokenTiles, false>& shared) {
  constexpr int kSets = FewShared<kTokenTiles, false>::kSets;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int swap = Ring::Place::swap_of(lane);
  const int spans = spans_of(args.in);
  int set = 0;
  for (int index = blockIdx.x; index < args.n_blocks; index += gridDim.x) {
    float acc[1][kTokenTiles][4] = {};
    multiply_share<kBits, kExact>(spans, groups, ring, x, acc);
    auto& sums = shared.sums[set];
    if (kSets == 1) {
      meet_all(); // who still reads the last task's
    }
    sums[warp / kWarps][warp % kWarps].write(acc, args.rows, lane, swap);
    meet_all();
    finish_task(args, Task(args, index), sums, shared.scales);
    set = (set + 1) % kSets;
  }
}

template <int kBits, bool kExact, int kTokenTiles, bool kOwn, class OfGroups>
__device__ __forceinline__ void multiply_few_of(
    const Multiply& args,
    const OfGroups& groups,
    FewShared<kTokenTiles, kOwn>& shared) {
  constexpr int kStages =
      few_stages(kBits, 8 * kTokenTiles, has_large_shared(kMajor));
  using Ring = FewRing<kBits, kOwn, kStages>;
  __shared__ typename Ring::Barriers barriers;
  extern __shared__ uint4 few_memory[];
  auto* memory = reinterpret_cast<char*>(few_memory);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  if constexpr (kOwn) {
    if (warp == kOwnThreads<kBits> / kLanes - 1) {
      __syncthreads();
      await_previous();
      finish_row_of_tasks(args, shared);
      return;
    }
  }
  Ring ring(args, span_params(groups.shift), memory, barriers);
  if constexpr (kOwn) {
    if (warp == kFewThreads / kLanes) {
      ring.copy_all(args);
      return;
    }
    __syncthreads(); // there are barriers
  }
  char* behind =
      memory + kTeams * kWarps * kStages * stage_bytes(kBits, groups.shift);
  // Weights are on their way for long, rows are not.
  if constexpr (kOwn) {
    RowBatch batch;
    batch.load_gains(args.own, 4 * static_cast<int>(threadIdx.x));
    await_previous();
    const auto x = own_row<kExact>(args.own, batch, shared, behind);
    multiply_own<kBits, kExact>(args, groups, ring, x, shared);
  } else {
    await_previous();
    const auto x =
        prepared_rows<kTokenTiles>(args, digits_of(kExact), shared, behind);
    multiply_several<kBits, kExact>(args, groups, ring, x, shared);
  }
}

/** Up to 8 kTokenTiles rows; kOwn: one, which the block prepares. */
template <int kBits, bool kExact, int kTokenTiles, bool kOwn>
__device__ __forceinline__ void multiply_few(const Multiply& args) {
  __shared__ FewShared<kTokenTiles, kOwn> shared;
  allow_next();
  const Groups groups{args.parts[0].group_shift, args.parts[0].param_type};
  if (kBits == kDense ||
      (groups.shift > 0 && groups.type == Number::BFloat16)) {
    multiply_few_of<kBits, kExact, kTokenTiles, kOwn>(
        args, UsualGroups{}, shared);
  } else {
    multiply_few_of<kBits, kExact, kTokenTiles, kOwn>(args, groups, shared);
  }
}

} // namespace
} // namespace optiq::kernels::cuda
