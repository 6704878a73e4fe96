#include "optiq/kernels/cpu/parallel_by_cost.h"

#include <numeric>

#include "optiq/base/thread_pool.h"

namespace optiq::kernels::cpu {
namespace {

/** First item whose middle lies at or beyond `share` of the total cost. */
std::size_t
boundary(std::span<const std::size_t> costs, double total, double share) {
  double before = 0.0;
  for (std::size_t i = 0; i < costs.size(); ++i) {
    const auto cost = static_cast<double>(costs[i]);
    if (before + cost / 2 >= total * share) {
      return i;
    }
    before += cost;
  }
  return costs.size();
}

} // namespace

void parallel_by_cost(
    std::span<const std::size_t> costs,
    std::size_t min_cost,
    const std::function<void(std::size_t, std::size_t, std::size_t)>& body) {
  const std::size_t total =
      std::accumulate(costs.begin(), costs.end(), std::size_t{0});
  if (costs.size() <= 1 || total < min_cost) {
    body(0, 0, costs.size());
    return;
  }
  ThreadPool& pool = ThreadPool::shared();
  const int n_pieces = pool.pieces(costs.size());
  pool.run(n_pieces, [&](int rank, int piece) {
    const auto at = [&](int i) {
      return i == n_pieces ? costs.size()
          : i == 0         ? 0
                           : boundary(
                         costs,
                         static_cast<double>(total),
                         static_cast<double>(i) / n_pieces);
    };
    const std::size_t begin = at(piece);
    const std::size_t end = at(piece + 1);
    if (begin < end) {
      body(static_cast<std::size_t>(rank), begin, end);
    }
  });
}

} // namespace optiq::kernels::cpu
