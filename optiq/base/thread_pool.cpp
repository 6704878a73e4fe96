#include "optiq/base/thread_pool.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "optiq/base/error.h"
#include "optiq/base/system.h"

namespace optiq {
namespace {

// About 50 us of pauses: longer than the gap between two ops of a decode step,
// shorter than what a sleeping machine should burn.
constexpr int kSpinPauses = 2000;

// Of a region: small enough that one in the hands of a thread that does not run
// is little, large enough that taking it is nothing.
constexpr int kPiecesPerRank = 8;

// Shares that no region touches are brought along after so many pieces.
constexpr std::uint32_t kFarPieces = 1u << 28;

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

using Counter = std::atomic<std::uint32_t>;

// Between cores a cache line takes 50 to 250 ns, which is what a region costs:
// nothing shares a line that is not sent together. Some processors fetch lines
// in pairs.
constexpr std::size_t kLine = 128;

struct alignas(kLine) LoneCounter {
  Counter value{0};
};

void advance(Counter& counter, std::uint32_t to) {
  // Not a plain store: notify_all looks for sleepers, and that look must not
  // come before the new value, or one who just falls asleep is missed.
  counter.exchange(to, std::memory_order_seq_cst);
  counter.notify_all();
}

/** Whether a counter has come to `target`. It may be beyond already, and
 * counters wrap around: the distance is what counts. */
bool has_come(std::uint32_t now, std::uint32_t target) {
  return static_cast<std::int32_t>(now - target) >= 0;
}

/** Spins, then sleeps, until the counter has come to `target`. */
void wait_for(const Counter& counter, std::uint32_t target) {
  int spins = 0;
  while (true) {
    const std::uint32_t now = counter.load(std::memory_order_acquire);
    if (has_come(now, target)) {
      return;
    }
    if (++spins < kSpinPauses) {
      pause_cpu();
    } else {
      counter.wait(now, std::memory_order_acquire);
    }
  }
}

/** Work of one rank's share that nobody has taken yet: pieces [first, end) of
 * a stage. As one word, so that taking one is one exchange. */
struct Share {
  std::uint32_t stage; // the number of its first piece
  std::uint16_t first;
  std::uint16_t end;

  static Share of(std::uint64_t word) {
    return {
        static_cast<std::uint32_t>(word >> 32),
        static_cast<std::uint16_t>(word >> 16),
        static_cast<std::uint16_t>(word)};
  }
  std::uint64_t word() const {
    return std::uint64_t{stage} << 32 | std::uint64_t{first} << 16 | end;
  }
};

struct alignas(kLine) SharedShare {
  std::atomic<std::uint64_t> word{0};
};

/** Sizes of a region's stages and the number of its first piece, as one word:
 * whoever comes late reads those of one region, never of two. */
struct Region {
  static constexpr int kBits = 10;
  static_assert(ThreadPool::kMostPieces < 1 << kBits);
  static_assert(ThreadPool::kMostStages * kBits <= 32);

  std::uint32_t begin = 0;
  std::array<std::uint32_t, ThreadPool::kMostStages> sizes{};

  static Region of(std::uint64_t word) {
    Region region{static_cast<std::uint32_t>(word), {}};
    for (std::size_t i = 0; i < region.sizes.size(); ++i) {
      region.sizes[i] = word >> (32 + i * kBits) & ((1u << kBits) - 1);
    }
    return region;
  }
  std::uint64_t word() const {
    std::uint64_t word = begin;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      word |= std::uint64_t{sizes[i]} << (32 + i * kBits);
    }
    return word;
  }
};

/** What the current thread is in the region it runs. */
struct Place {
  int rank = 0;
  bool is_inside = false; // of any region
};
thread_local Place place;

} // namespace

/**
 * Pieces are numbered through all regions, so the number of a stage's first
 * piece names the stage, and `done` counts towards its end. A worker needs no
 * leave to join: what it takes is an exchange in the share of a stage, which
 * fails once that stage has ended; and while it has a piece, the stage has not
 * ended and the caller's frame is there. Counters wrap around: distances count.
 */
struct ThreadPool::State {
  State(int n, std::uint32_t first_piece) : next(first_piece) {
    publish({next - 1, {}});
    done.value = next;
    start(n);
  }

  ~State() {
    stop();
  }

  /** Throws Exhausted when the system refuses a thread; then the caller is the
   * only rank. */
  void start(int n) {
    set_ranks(std::max(1, n));
    command.is_last = false;
    workers.reserve(n_ranks);
    try {
      for (int rank = 1; rank < n_ranks; ++rank) {
        workers.emplace_back(
            [this, rank, seen = command.begin.load()] { work(rank, seen); });
      }
    } catch (const std::system_error& error) {
      const std::size_t n_started = workers.size();
      stop();
      set_ranks(1);
      fail(
          ErrorKind::Exhausted,
          "[ThreadPool] cannot start compute thread {} of {}: {}. Ask for "
          "fewer (--threads), or raise the limits on processes (ulimit -u, "
          "the container's) and memory (ulimit -v)",
          n_started + 2, // the caller is the first
          n,
          error.code().message());
    }
  }

  void set_ranks(int n) {
    n_ranks = n;
    shares = std::vector<SharedShare>(n_ranks);
    clear_shares();
  }

  /** All are of a stage before any, and not so long ago that it seems to come.
   * Between regions nobody exchanges them. */
  void clear_shares() {
    for (SharedShare& share : shares) {
      share.word = Share{next - 1, 0, 0}.word();
    }
    cleared = next;
  }

  void stop() {
    command.is_last = true;
    publish({next++, {}}); // a number of its own
    done.value = next;
    for (std::thread& worker : workers) {
      worker.join();
    }
    workers.clear();
  }

  void publish(const Region& region) {
    command.region.store(region.word(), std::memory_order_release);
    advance(command.begin, region.begin);
  }

  Region send(const std::array<std::uint32_t, kMostStages>& sizes) {
    if (next - cleared > kFarPieces) {
      clear_shares();
    }
    const Region region{next, sizes};
    for (const std::uint32_t size : sizes) {
      next += size;
    }
    publish(region);
    return region;
  }

  void work(int rank, std::uint32_t seen) {
    place = {rank, true};
    while (true) {
      wait_for(command.begin, seen + 1);
      const Region region =
          Region::of(command.region.load(std::memory_order_acquire));
      if (command.is_last) {
        return;
      }
      seen = region.begin;
      take_part(region, rank);
    }
  }

  /** All stages; at the end of the last one pieces may be in others' hands. */
  void take_part(const Region& region, int rank) {
    std::uint32_t begin = region.begin;
    for (int i = 0; i < kMostStages && region.sizes[i] > 0; ++i) {
      if (i > 0) {
        wait_for(done.value, begin);
      }
      take_pieces(i, begin, region.sizes[i], rank);
      begin += region.sizes[i];
    }
  }

  /** Of the rank's own share from its front, of others' from their back. */
  void take_pieces(int stage, std::uint32_t begin, std::uint32_t n, int rank) {
    for (int i = 0; i < n_ranks; ++i) {
      const int whose = (rank + i) % n_ranks;
      std::uint32_t n_taken = 0;
      while (const std::optional<int> piece = take(begin, n, whose, i == 0)) {
        commands[stage].call(commands[stage].object, rank, *piece);
        ++n_taken;
      }
      if (finish(n_taken, begin + n)) {
        return;
      }
    }
  }

  std::optional<int>
  take(std::uint32_t begin, std::uint32_t n, int whose, bool is_own) {
    std::atomic<std::uint64_t>& word = shares[whose].word;
    std::uint64_t found = word.load(std::memory_order_acquire);
    while (true) {
      Share share = Share::of(found);
      if (has_come(share.stage, begin + 1)) {
        return std::nullopt; // the stage has ended
      }
      if (share.stage != begin) { // nobody has taken of this one
        share = {
            begin,
            static_cast<std::uint16_t>(n * whose / n_ranks),
            static_cast<std::uint16_t>(n * (whose + 1) / n_ranks)};
      }
      if (share.first == share.end) {
        return std::nullopt;
      }
      const int piece = is_own ? share.first++ : --share.end;
      if (word.compare_exchange_weak(
              found,
              share.word(),
              std::memory_order_acq_rel,
              std::memory_order_acquire)) {
        return piece;
      }
    }
  }

  /** Counts pieces as done; whether all up to `end` are. */
  bool finish(std::uint32_t n, std::uint32_t end) {
    if (n == 0) {
      return has_come(done.value.load(std::memory_order_acquire), end);
    }
    const std::uint32_t now =
        done.value.fetch_add(n, std::memory_order_seq_cst) + n;
    if (!has_come(now, end)) {
      return false;
    }
    done.value.notify_all();
    return true;
  }

  void run(std::initializer_list<Stage> stages) {
    std::array<std::uint32_t, kMostStages> sizes{};
    std::size_t n_stages = 0;
    for (const Stage& stage : stages) {
      if (stage.n_pieces_ > 0) {
        sizes.at(n_stages) = static_cast<std::uint32_t>(stage.n_pieces_);
        commands[n_stages++] = {stage.call_, stage.object_};
      }
    }
    if (n_stages == 0) {
      return;
    }
    place = {0, true};
    take_part(send(sizes), 0);
    wait_for(done.value, next);
    place = {};
  }

  /** False: the calling thread has the turn already. */
  bool take_turn() {
    const std::thread::id self = std::this_thread::get_id();
    if (owner.load(std::memory_order_relaxed) == self) {
      return false;
    }
    const std::uint32_t ticket =
        next_ticket.fetch_add(1, std::memory_order_relaxed);
    while (true) {
      const std::uint32_t now = serving.load(std::memory_order_acquire);
      if (now == ticket) {
        break;
      }
      // No spinning: turns are long, and the cores are their owner's.
      serving.wait(now, std::memory_order_acquire);
    }
    owner.store(self, std::memory_order_relaxed);
    return true;
  }

  void pass_turn() {
    owner.store({}, std::memory_order_relaxed);
    advance(serving, serving.load(std::memory_order_relaxed) + 1);
  }

  /** All that a worker reads to begin, on one line. */
  struct alignas(kLine) Command {
    Counter begin{0}; // of the region, for those who wait
    std::atomic<bool> is_last{false}; // the workers end
    std::atomic<std::uint64_t> region{0};
  };
  struct Work {
    Stage::Call call = nullptr;
    const void* object = nullptr;
  };

  int n_ranks = 1;
  std::uint32_t next; // the number of the next piece
  std::uint32_t cleared = 0; // what it was when the shares were
  Command command;
  std::array<Work, kMostStages> commands; // read by who has a piece
  LoneCounter done; // pieces
  std::vector<SharedShare> shares; // per rank
  std::vector<std::thread> workers;

  // Turns: who calls `run` draws a ticket and waits until it is served.
  alignas(kLine) Counter next_ticket{0};
  Counter serving{0};
  std::atomic<std::thread::id>
      owner{}; // of the turn; only it writes its own id
};

ThreadPool& ThreadPool::shared() {
  // Leaked: kernels may run on other threads during static destruction.
  static auto* pool = new ThreadPool(usable_cores());
  return *pool;
}

ThreadPool::ThreadPool(int n_threads, std::uint32_t first_piece)
    : state_(new State(n_threads, first_piece)) {}

ThreadPool::~ThreadPool() {
  delete state_;
}

int ThreadPool::size() const {
  return state_->n_ranks;
}

int ThreadPool::pieces(std::size_t most) const {
  if (state_->n_ranks == 1) {
    return 1;
  }
  const auto limit = static_cast<std::size_t>(kPiecesPerRank) * state_->n_ranks;
  return static_cast<int>(std::clamp<std::size_t>(
      most, 1, std::min<std::size_t>(limit, kMostPieces)));
}

void ThreadPool::resize(int n_threads) {
  if (n_threads != state_->n_ranks) {
    state_->stop();
    state_->start(n_threads);
  }
}

ThreadPool::Turn::Turn(ThreadPool& pool)
    : pool_(
          !place.is_inside && pool.size() > 1 && pool.state_->take_turn()
              ? &pool
              : nullptr) {}

ThreadPool::Turn::~Turn() {
  if (pool_ != nullptr) {
    pool_->state_->pass_turn();
  }
}

void ThreadPool::run(std::initializer_list<Stage> stages) {
  for (const Stage& stage : stages) {
    if (stages.size() > kMostStages || stage.n_pieces_ > kMostPieces) {
      fail(
          ErrorKind::Internal,
          "[ThreadPool] found {} stages, one of {} pieces, expected at most {} "
          "of {}",
          stages.size(),
          stage.n_pieces_,
          kMostStages,
          kMostPieces);
    }
  }
  if (!place.is_inside && state_->n_ranks > 1) {
    const Turn turn(*this);
    state_->run(stages);
    return;
  }
  const Place outer = std::exchange(place, {0, true});
  for (const Stage& stage : stages) {
    for (int piece = 0; piece < stage.n_pieces_; ++piece) {
      stage.call_(stage.object_, 0, piece);
    }
  }
  place = outer;
}

} // namespace optiq
