// A tenth of the usual limits, on as many hostile templates as take seconds;
// template_budget_slow_test has the usual limits and 10,000.
#include <gtest/gtest.h>

#include "support/slowdown.h"
#include "text/hostile_templates.h"
#include "text/measured_template.h"

namespace optiq::text {
namespace {

// Beside what a rendering may hold: the parsed template, and what the test's
// own measuring and the error's text take.
constexpr std::size_t kAround = 8u << 20;

TEST(TemplateBudget, HoldsForGeneratedTemplates) {
  const RenderBudget budget{
      .steps = 100'000,
      .output_bytes = 1u << 20,
      .wall = std::chrono::milliseconds(100 * test::kSlowdown)};
  HostileTemplates templates(1);
  Measured worst;
  std::size_t n_exhausted = 0;
  for (std::size_t i = 0; i < 400; ++i) {
    const std::string source = templates.make(i);
    const Measured measured =
        measure(source, budget, artifacts::Json::object());
    EXPECT_LT(measured.seconds, 0.2 * test::kSlowdown)
        << i << ": " << source.substr(0, 400);
    EXPECT_LT(measured.bytes, 2 * (8u << 20) + kAround)
        << i << ": " << source.substr(0, 400);
    worst.seconds = std::max(worst.seconds, measured.seconds);
    worst.bytes = std::max(worst.bytes, measured.bytes);
    n_exhausted += measured.is_exhausted ? 1 : 0;
  }
  std::printf(
      "worst: %.3f s, %zu MiB; %zu ran out\n",
      worst.seconds,
      worst.bytes >> 20,
      n_exhausted);
  EXPECT_GT(n_exhausted, 50u); // they are hostile
}

} // namespace
} // namespace optiq::text
