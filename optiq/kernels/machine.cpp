#include "optiq/kernels/machine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>

#include <hwy/highway.h>
#include <hwy/targets.h>

#include "optiq/base/error.h"
#include "optiq/base/pages.h"
#include "optiq/base/thread_pool.h"
#include "optiq/kernels/cpu/amx.h"
#include "optiq/kernels/cpu/probe.h"

namespace optiq::kernels {
namespace {

constexpr const char* kAmxTarget = "AMX";

struct Target {
  std::string name;
  std::int64_t bit;
  bool has_tiles = false;
};

/** Best first. Read once, before anything is forced. */
const std::vector<Target>& targets() {
  static const std::vector<Target> all = [] {
    std::vector<Target> found;
    for (const std::int64_t bit : hwy::SupportedAndGeneratedTargets()) {
      found.push_back({hwy::TargetName(bit), bit});
    }
    if (cpu::has_amx()) {
      found.insert(found.begin(), {kAmxTarget, found.front().bit, true});
    }
    return found;
  }();
  return all;
}

/** Seconds of the fastest of `repeats` runs. */
template <class Body>
double best_seconds(int repeats, const Body& body) {
  double best = 0;
  for (int i = 0; i < std::max(1, repeats); ++i) {
    const auto start = std::chrono::steady_clock::now();
    body();
    const std::chrono::duration<double> took =
        std::chrono::steady_clock::now() - start;
    best = i == 0 ? took.count() : std::min(best, took.count());
  }
  return best;
}

} // namespace

std::string simd_target() {
  return cpu::uses_amx() ? kAmxTarget : cpu::running_target();
}

std::vector<std::string> simd_targets() {
  std::vector<std::string> names;
  for (const Target& target : targets()) {
    names.push_back(target.name);
  }
  return names;
}

void force_simd_target(const std::string& name) {
  std::string known;
  for (const Target& target : targets()) {
    if (name == target.name) {
      // Unlike DisableTargets, this also holds after another call of
      // hwy::SupportedTargets().
      hwy::SetSupportedTargetsForTest(target.bit);
      cpu::set_uses_amx(target.has_tiles);
      return;
    }
    known += (known.empty() ? "" : ", ") + target.name;
  }
  if (!name.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "[force_simd_target] found '{}', expected one of {}. Leave it empty "
        "for the best.",
        name,
        known);
  }
  hwy::SetSupportedTargetsForTest(0);
  cpu::set_uses_amx(true);
}

double measure_read_bandwidth(std::size_t bytes, int repeats) {
  const std::size_t n = std::max<std::size_t>(1, bytes / 8);
  const std::unique_ptr<std::uint64_t[]> words(new std::uint64_t[n]);
  advise_huge_pages(words.get(), 8 * n);
  parallel_for(n, 512, [&](std::size_t begin, std::size_t end) {
    std::fill(words.get() + begin, words.get() + end, 1);
  });
  std::atomic<std::uint64_t> total{0};
  const double seconds = best_seconds(repeats, [&] {
    parallel_for(n, 512, [&](std::size_t begin, std::size_t end) {
      total += cpu::sum_words(words.get() + begin, end - begin);
    });
  });
  return static_cast<double>(8 * n) / seconds;
}

double measure_int8_dot_peak(int repeats) {
  constexpr std::size_t kSteps = 1 << 20; // a few milliseconds
  ThreadPool& pool = ThreadPool::shared();
  const int n_pieces = pool.pieces(static_cast<std::size_t>(pool.size()));
  std::atomic<std::int64_t> total{0};
  const double seconds = best_seconds(repeats, [&] {
    pool.run(n_pieces, [&](int, int) { total += cpu::spin_dots(kSteps); });
  });
  return static_cast<double>(kSteps * cpu::dots_per_step()) * n_pieces /
      seconds;
}

} // namespace optiq::kernels
