#include "optiq/generate/shared_beginnings.h"

#include <algorithm>
#include <numeric>

namespace optiq::generate {

std::size_t common_length(
    std::span<const std::int32_t> a,
    std::span<const std::int32_t> b) {
  return static_cast<std::size_t>(
      std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

std::vector<std::size_t> shared_beginnings(Prompts prompts) {
  std::vector<std::size_t> order(prompts.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::ranges::lexicographical_compare(prompts[a], prompts[b]);
  });
  // In this order nobody has more in common than neighbours.
  std::vector<std::size_t> shared(prompts.size(), 0);
  for (std::size_t i = 1; i < order.size(); ++i) {
    const std::size_t a = order[i - 1];
    const std::size_t b = order[i];
    const std::size_t n = common_length(prompts[a], prompts[b]);
    shared[a] = std::max(shared[a], n);
    shared[b] = std::max(shared[b], n);
  }
  return shared;
}

} // namespace optiq::generate
