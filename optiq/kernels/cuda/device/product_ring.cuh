// How spans of weights come to the warps of product_few.cuh, in stages of
// shared memory that go round. Each warp copies its own; but for a single row
// one more warp asks the bulk engine, where there is one, for as many codes as
// a team of warps multiplies at once.
#pragma once

#include <type_traits>

#include "optiq/kernels/cuda/device/hopper.cuh"
#include "optiq/kernels/cuda/device/product_sums.cuh"

namespace optiq::kernels::cuda {
namespace {

constexpr int kTeams = 2; // of kWarps warps
#ifdef __CUDA_ARCH__
constexpr int kMajor = __CUDA_ARCH__ / 100;
#else
constexpr int kMajor = 8;
#endif
static_assert(kFewThreads == kTeams * kThreads);
static_assert(kFewThreads == kPrepareThreads);
/** Of a block that prepares a single row: behind those that multiply there may
 * be a warp that copies, then one that writes results. */
template <int kBits>
constexpr int kOwnThreads = own_threads(kBits, kMajor);

/** The block's barriers, by number. */
enum FewBarrier : int {
  kAllMultiply = 0,
  kOfShare = 1, // the two warps that have the same columns
  kSumsFull = kOfShare + kShares, // two sets of sums of a single row
  kSumsEmpty = kSumsFull + 2,
};
template <int kThreadsThatMeet>
__device__ __forceinline__ void meet(int barrier) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "n"(kThreadsThatMeet)
               : "memory");
}
/** Counts as one that is there, and goes on. */
template <int kThreadsThatMeet>
__device__ __forceinline__ void pass(int barrier) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "n"(kThreadsThatMeet)
               : "memory");
}
__device__ __forceinline__ void meet_all() {
  meet<kFewThreads>(kAllMultiply);
}
__device__ __forceinline__ void meet_other_team() {
  meet<64>(kOfShare + static_cast<int>(threadIdx.x) / 32 % kWarps);
}

/** Tiles of weights, one for each team of warps: of a part one or two that
 * follow each other, or, gated, one of the first part and the same of the
 * second. */
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
      tile = (index - first) * args.n_tiles;
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

/** Copies a warp's spans into its stages, task by task. */
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
    const int warp = static_cast<int>(threadIdx.x) / 32;
    if (warp % kWarps >= spans || warp / kWarps >= of.n_tiles) {
      task = of.n_blocks; // fewer spans than warps, or no tile for the team
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

/** The stages of each warp, which it fills. */
template <int kBits, int kStages>
struct OwnRing {
  using Place = Stage<kBits>;
  struct Barriers {};
  Loader<kBits> loader;
  int stage_bytes;
  char* begin;
  char* end;
  char* stage; // in hand
  char* empty;
  bool is_idle; // a team without a tile

  __device__ __forceinline__
  OwnRing(const Multiply& args, int each, char* memory, Barriers&)
      : loader(args, each),
        stage_bytes(Place::bytes(each)),
        begin(memory + threadIdx.x / 32 * kStages * stage_bytes),
        end(begin + kStages * stage_bytes),
        stage(begin),
        empty(begin),
        is_idle(static_cast<int>(threadIdx.x) / kThreads >= args.n_tiles) {
#pragma unroll 1
    for (int i = 0; i < kStages - 1; ++i) {
      loader.load(empty);
      empty += stage_bytes;
    }
  }
  __device__ __forceinline__ void copy_all(const Multiply&) const {}
  /** Spans that the warp takes of a task. */
  __device__ __forceinline__ int spans_of_warp(int spans) const {
    const int first = static_cast<int>(threadIdx.x) / 32 % kWarps;
    return is_idle ? 0 : (spans - first + kWarps - 1) / kWarps;
  }
  /** Waits for the next span. */
  template <class Weights>
  __device__ __forceinline__ void take(Weights& to, int each) {
    await_copies<kStages - 2>();
    __syncwarp(); // other lanes' copies are there, the last stage is read
    to.template read<Place>({stage, stage + Place::kCodeBytes}, each);
    // Before products: a tenth of their time.
    loader.load(empty);
    empty = stage;
    stage += stage_bytes;
    stage = stage == end ? begin : stage;
  }
};

/** The stages of each team, which one warp of the block fills: codes of eight
 * spans, then their params. */
template <int kBits, int kStages>
struct BulkRing {
  using Place = BulkStage<kBits>;
  static constexpr int kCodeBytes = kWarps * Place::kCodeBytes;
  struct Barriers {
    std::uint64_t full[kTeams * kStages];
    std::uint64_t empty[kTeams * kStages];
  };
  Barriers& barriers;
  int param_bytes; // of a span
  int stage_bytes;
  char* memory;
  SpanAt next; // the warp's span in the stage that the team takes
  int stage = 0;
  int parity = 0;
  bool is_idle; // a team without a tile

  __device__ __forceinline__
  BulkRing(const Multiply& args, int each, char* of_block, Barriers& of)
      : barriers(of),
        param_bytes(4 * kTileRows * each),
        stage_bytes(kCodeBytes + kWarps * param_bytes),
        memory(of_block),
        is_idle(team() >= args.n_tiles) {
    const int warp = static_cast<int>(threadIdx.x) / 32 % kWarps;
    const char* begin = memory + team() * kStages * stage_bytes;
    next = {
        begin + warp * Place::kCodeBytes,
        begin + kCodeBytes + warp * param_bytes};
  }
  static __device__ __forceinline__ int team() {
    return static_cast<int>(threadIdx.x) / kThreads;
  }

  /** Makes the barriers and copies all that the block multiplies, by a warp. */
  __device__ __forceinline__ void copy_all(const Multiply& args) const {
    if (threadIdx.x % 32 == 0) {
      for (int i = 0; i < kTeams * kStages; ++i) {
        make_barrier(barriers.full[i], 1);
        make_barrier(barriers.empty[i], kThreads);
      }
      publish_barriers();
    }
    __syncthreads();
    if (threadIdx.x % 32 != 0) {
      return;
    }
    const int spans = spans_of(args.in);
    int stage = 0;
    int to_wait_for = -1; // the round before
    for (int index = blockIdx.x; index < args.n_blocks; index += gridDim.x) {
      const Task task(args, index);
#pragma unroll 1
      for (int span = 0; span < spans; span += kWarps) {
        const int n = min(kWarps, spans - span);
#pragma unroll 1
        for (int team = 0; team < args.n_tiles; ++team) {
          const int to = team * kStages + stage;
          if (to_wait_for >= 0) {
            await_barrier(barriers.empty[to], to_wait_for % 2);
          }
          const std::int64_t tile = task.tile_of(args, team);
          copy_stage(task.part_of(args, team), tile * spans + span, n, to);
        }
        if (++stage == kStages) {
          stage = 0;
          ++to_wait_for;
        }
      }
    }
  }
  /** n spans of a part from one on. */
  __device__ __forceinline__ void
  copy_stage(const MultiplyPart& part, std::int64_t from, int n, int to) const {
    std::uint64_t& full = barriers.full[to];
    char* stage = memory + to * stage_bytes;
    arrive_expecting(full, n * (Place::kCodeBytes + param_bytes));
    copy_bulk(
        stage,
        reinterpret_cast<const char*>(part.weight) + from * Place::kCodeBytes,
        n * Place::kCodeBytes,
        full);
    copy_bulk(
        stage + kCodeBytes,
        reinterpret_cast<const char*>(part.params) + from * param_bytes,
        n * param_bytes,
        full);
  }

  /** Stages that the team takes of a task. */
  __device__ __forceinline__ int spans_of_warp(int spans) const {
    return is_idle ? 0 : (spans + kWarps - 1) / kWarps;
  }
  /** Waits for the next stage; its last warps may have nothing there. */
  template <class Weights>
  __device__ __forceinline__ void take(Weights& to, int each) {
    await_barrier(barriers.full[team() * kStages + stage], parity);
    __syncwarp();
    to.template read<Place>(next, each);
    arrive_behind(barriers.empty[team() * kStages + stage], to.seen(each));
    ++stage;
    next.codes += stage_bytes;
    next.params += stage_bytes;
    if (stage == kStages) {
      stage = 0;
      parity ^= 1;
      next.codes -= kStages * stage_bytes;
      next.params -= kStages * stage_bytes;
    }
  }
};

template <int kBits, bool kOwn, int kStages>
using FewRing = std::conditional_t<
    kOwn && copies_in_bulk(kBits, kMajor),
    BulkRing<kBits, kStages>,
    OwnRing<kBits, kStages>>;

} // namespace
} // namespace optiq::kernels::cuda
