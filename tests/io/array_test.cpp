#include "optiq/io/array.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"

#include "optiq/base/error.h"

namespace optiq::io {
namespace {

TEST(Array, RefusesWhatMemoryDoesNotHold) {
  test::expect_error(
      ErrorKind::Exhausted,
      {"an array of shape [1048576, 1048576, 64]", "needs 268435456 MiB"},
      [] {
        make_array({1 << 20, 1 << 20, 64}, mx::float32);
      });
}

TEST(Array, EmptyArraysAreFine) {
  EXPECT_EQ(make_array({0, 7}, mx::float32).size(), 0U);
}

} // namespace
} // namespace optiq::io
