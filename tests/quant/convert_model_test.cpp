#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/poisoned_device.h"
#include "support/scratch_folder.h"
#include "support/tiny_model.h"

#include "optiq/quant/convert.h"

namespace optiq::quant {
namespace {

TEST(Convert, RefusesToLimitTheHostWhereADeviceHasItsOwnMemory) {
  const test::ScratchFolder folder;
  testing::PoisonedDevice device;
  device.bytes_left = std::uint64_t{1} << 33;
  ConvertOptions options;
  options.source = testing::tiny_model_path();
  options.output = folder.path() / "out";
  options.device = &device;
  options.max_ram = std::uint64_t{1} << 29;
  test::expect_error(
      ErrorKind::InvalidInput,
      {"--max-ram", "--device poisoned", "--device cpu"},
      [&] { convert(options, {}); });
  EXPECT_FALSE(std::filesystem::exists(options.output));
}

} // namespace
} // namespace optiq::quant
