#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/cpu_operations.h"

#include "optiq/base/thread_pool.h"
#include "optiq/io/array.h"

/** What the kernel tests share: inputs, SIMD targets, comparisons. */
namespace optiq::testing {

namespace mx = mlx::core;

/** Unit roundoff of float32. */
inline constexpr double kUnit = std::numeric_limits<float>::epsilon() / 2;

inline mx::array
normal_array(const mx::Shape& shape, unsigned seed, float deviation = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  mx::array x = io::make_array(shape, mx::float32);
  for (float& value : io::mutable_floats(x)) {
    value = normal(random);
  }
  return x;
}

inline mx::array array_of(const std::vector<float>& values, mx::Shape shape) {
  mx::array x = io::make_array(shape, mx::float32);
  std::copy(values.begin(), values.end(), io::mutable_floats(x).begin());
  return x;
}

/** Rows [begin, begin + n) of the first axis, copied. */
inline mx::array rows_of(const mx::array& x, int begin, int n) {
  mx::Shape shape = x.shape();
  const std::size_t width = x.size() / shape[0];
  shape[0] = n;
  mx::array out = io::make_array(shape, mx::float32);
  std::memcpy(
      io::mutable_floats(out).data(),
      io::floats(x).data() + begin * width,
      n * width * sizeof(float));
  return out;
}

inline bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() &&
      std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

/** Runs `body` once per SIMD target that this machine has. */
inline void for_each_target(const std::function<void()>& body) {
  for (const std::string& target : kernels::simd_targets()) {
    SCOPED_TRACE(target);
    kernels::force_simd_target(target);
    body();
  }
  kernels::force_simd_target("");
}

/** The pool at n ranks while it lives. */
class Threads {
 public:
  explicit Threads(int n) : before_(ThreadPool::shared().size()) {
    ThreadPool::shared().resize(n);
  }
  ~Threads() {
    ThreadPool::shared().resize(before_);
  }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

} // namespace optiq::testing
