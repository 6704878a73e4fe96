#include <cstdlib>
#include <string_view>

#include <gtest/gtest.h>

// Two planted programs in one: what OPTIQ_LIE asks for. lint.cmake registers
// them as every test is registered, and checks what ctest makes of them.

namespace {

bool is_asked_for(std::string_view lie) {
  const char* const asked = std::getenv("OPTIQ_LIE");
  return asked != nullptr && lie == asked;
}

TEST(Lie, SkipsOneCase) {
  if (is_asked_for("fail") || is_asked_for("skip")) {
    GTEST_SKIP() << "planted";
  }
}

TEST(Lie, FailsAnother) {
  EXPECT_FALSE(is_asked_for("fail"));
}

} // namespace
