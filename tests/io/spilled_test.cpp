#include "optiq/io/spilled.h"

#include <gtest/gtest.h>
#include <mlx/ops.h>

#include "support/scratch_folder.h"

#include "optiq/base/mapping_guard.h"
#include "optiq/base/ram_limit.h"
#include "optiq/base/system_impl.h"
#include "optiq/io/array.h"

namespace optiq::io {
namespace {

constexpr std::size_t kMib = std::size_t{1} << 20;

TEST(Spilled, IsTheArrayItselfWithoutALimit) {
  const mx::array x = materialize(mx::arange(100'000.f));
  EXPECT_EQ(spilled(x).data<float>(), x.data<float>());
}

TEST(Spilled, KeepsValuesInAFileUnderALimit) {
  const auto memory = resident_memory();
  if (!memory) {
    GTEST_SKIP() << "this system does not say what a process has in memory";
  }
  const test::ScratchFolder folder;
  const mx::array x =
      materialize(mx::reshape(mx::arange(100'000.f), {1000, 100}));
  mx::array y = x;
  {
    const RamLimit limit(
        memory->heap + memory->file + 300 * kMib, folder.path());
    y = spilled(x);
    EXPECT_TRUE(is_mapped(y.data<float>()));
    EXPECT_EQ(spilled(y).data<float>(), y.data<float>());
    EXPECT_EQ(spilled(row_range(x, 0, 2)).data<float>(), x.data<float>());
  }
  // It outlives the limit.
  EXPECT_EQ(y.shape(), x.shape());
  EXPECT_TRUE(mx::array_equal(x, y).item<bool>());
}

} // namespace
} // namespace optiq::io
