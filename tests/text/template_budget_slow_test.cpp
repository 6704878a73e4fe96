// The limits of a rendering, 1 s and 64 MiB of values, hold within a factor of
// two for 10,000 hostile templates.
#include <gtest/gtest.h>

#include "text/hostile_templates.h"
#include "text/measured_template.h"

namespace optiq::text {
namespace {

TEST(TemplateBudgetSlow, HoldsFor10000GeneratedTemplates) {
  HostileTemplates templates(2);
  ASSERT_GT(templates.n_builtins(), 150u);
  Measured slowest;
  Measured largest;
  std::string slow_source;
  std::string large_source;
  for (std::size_t i = 0; i < 10'000; ++i) {
    const std::string source = templates.make(i);
    const Measured measured = measure(source, {}, artifacts::Json::object());
    EXPECT_LT(measured.seconds, 2.0) << i << ": " << source.substr(0, 400);
    EXPECT_LT(measured.bytes, 128u << 20) << i << ": " << source.substr(0, 400);
    if (measured.seconds > slowest.seconds) {
      slowest = measured;
      slow_source = source.substr(0, 200);
    }
    if (measured.bytes > largest.bytes) {
      largest = measured;
      large_source = source.substr(0, 200);
    }
  }
  std::printf(
      "10000 templates over %zu builtins\nworst time: %.3f s: %s\n"
      "worst memory: %.1f MiB: %s\n",
      templates.n_builtins(),
      slowest.seconds,
      slow_source.c_str(),
      static_cast<double>(largest.bytes) / (1 << 20),
      large_source.c_str());
}

} // namespace
} // namespace optiq::text
