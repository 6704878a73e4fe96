// TurboQuant as a library: one cache per attention layer, 4 bits per channel,
// attention on the packed codes. Build it against an installed OptIQ:
//
//   find_package(Optiq REQUIRED)
//   target_link_libraries(turboquant_cache PRIVATE optiq::optiq)
#include "optiq/cache/turboquant_cache.h"

#include <cmath>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <vector>

#include <mlx/ops.h>
#include <mlx/random.h>
#include <mlx/transforms.h>

namespace {

namespace mx = mlx::core;

constexpr int kLayers = 4;
constexpr int kHeads = 8;
constexpr int kKvHeads = 2;
constexpr int kHeadDim = 128;
constexpr int kTokens = 1000;

mx::array random_rows(int rows, int heads) {
  mx::array x = mx::random::normal({rows, heads, kHeadDim});
  mx::eval(x);
  return x;
}

void run() {
  std::vector<optiq::cache::TurboQuantKvCache> caches;
  for (int layer = 0; layer < kLayers; ++layer) {
    // Each layer has rotations of its own.
    caches.emplace_back(
        kHeadDim,
        4.f,
        42 + layer,
        optiq::cache::TurboQuantOptions{.n_kv_heads = kKvHeads});
  }
  const float scale = 1.f / std::sqrt(static_cast<float>(kHeadDim));
  std::size_t bytes = 0;
  for (optiq::cache::TurboQuantKvCache& cache : caches) {
    cache.append(
        random_rows(kTokens, kKvHeads), random_rows(kTokens, kKvHeads));
    const mx::array y = cache.attend(random_rows(1, kHeads), scale);
    if (!mx::all(mx::isfinite(y)).item<bool>()) {
      throw std::runtime_error("attention is not finite");
    }
    bytes += cache.nbytes();
  }
  const std::size_t half =
      std::size_t{kLayers} * kTokens * kKvHeads * kHeadDim * 2 * 2;
  std::printf(
      "%d layers, %d tokens: %zu bytes, as float16 %zu\n",
      kLayers,
      kTokens,
      bytes,
      half);
}

} // namespace

int main() {
  try {
    run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "turboquant_cache: %s\n", error.what());
    return 1;
  }
  return 0;
}
