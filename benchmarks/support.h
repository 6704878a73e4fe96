#pragma once

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <utility>
#include <vector>

#include "optiq/io/array.h"

/** What the benchmarks of operations have in common. */
namespace bench {

namespace mx = mlx::core;

struct Timing {
  double median = 0; // seconds
  double fastest = 0;
  double slowest = 0;
};

inline Timing time_runs(int n, const std::function<void()>& body) {
  std::vector<double> seconds;
  for (int i = 0; i < n; ++i) {
    const auto start = std::chrono::steady_clock::now();
    body();
    const std::chrono::duration<double> took =
        std::chrono::steady_clock::now() - start;
    seconds.push_back(took.count());
  }
  std::sort(seconds.begin(), seconds.end());
  return {seconds[n / 2], seconds.front(), seconds.back()};
}

/** Tokens before those that are timed, as the command line names them: `usual`
 * without any. Ends the program where one is none. */
inline std::vector<int>
contexts_of(int argc, char** argv, const char* name, std::vector<int> usual) {
  std::vector<int> contexts;
  for (int i = 1; i < argc; ++i) {
    const int context = std::atoi(argv[i]);
    if (context < 1) {
      std::fprintf(stderr, "usage: %s [context ...]\n", name);
      std::exit(2);
    }
    contexts.push_back(context);
  }
  return contexts.empty() ? std::move(usual) : contexts;
}

inline mx::array normal_array(const mx::Shape& shape, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  mx::array x = optiq::io::make_array(shape, mx::float32);
  for (float& value : optiq::io::mutable_floats(x)) {
    value = normal(random);
  }
  return x;
}

} // namespace bench
