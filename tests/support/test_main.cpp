#include <gtest/gtest.h>

namespace {

constexpr int kSkipped = 77; // SKIP_RETURN_CODE in cmake/OptiqTests.cmake

} // namespace

/** GoogleTest's main, but for a run that skipped something and is otherwise
 * right: ctest shows it as skipped. A failure is a failure, whatever else was
 * skipped. */
int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  const int status = RUN_ALL_TESTS();
  if (status != 0) {
    return status;
  }
  const ::testing::UnitTest& all = *::testing::UnitTest::GetInstance();
  // An environment skips all tests at once.
  const bool skipped =
      all.skipped_test_count() > 0 || all.ad_hoc_test_result().Skipped();
  return skipped ? kSkipped : 0;
}
