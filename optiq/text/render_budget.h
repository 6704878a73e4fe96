#pragma once

#include <chrono>
#include <cstddef>

namespace optiq::text {

/** What one parsing or rendering of a template may use before it is stopped
 * (Exhausted). The values that it holds at one time may take 8 times the
 * output. */
struct RenderBudget {
  std::size_t steps = 1'000'000;
  std::size_t output_bytes = 8u << 20;
  int depth = 64; // of calls, includes the nesting of expressions when parsing
  std::chrono::milliseconds wall{1000};
};

} // namespace optiq::text
