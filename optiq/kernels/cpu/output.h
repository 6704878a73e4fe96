#pragma once

#include <cstddef>

namespace optiq::kernels::cpu {

/** Where some columns of a product go: row t from y + t * stride on, `y` being
 * the first of these columns. */
struct Output {
  float* y = nullptr;
  std::size_t stride = 0;

  float* row(std::size_t t) const {
    return y + t * stride;
  }
};

} // namespace optiq::kernels::cpu
