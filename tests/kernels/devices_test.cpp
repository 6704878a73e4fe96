#include "optiq/kernels/devices.h"

#include <cstdint>
#include <string>

#include <gtest/gtest.h>

#include "support/poisoned_device.h"

#include "optiq/base/error.h"

namespace optiq::kernels {
namespace {

constexpr std::uint64_t kMib = 1 << 20;

TEST(Devices, AMemoryOfItsOwnIsWhatADeviceHas) {
  testing::PoisonedDevice device;
  device.bytes_left = 8 * kMib;
  EXPECT_EQ(available_bytes(device), 8 * kMib);
  EXPECT_NO_THROW(require_bytes(device, 8 * kMib, "the weights"));
  try {
    require_bytes(device, 9 * kMib, "the weights");
    ADD_FAILURE() << "found no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Exhausted);
    EXPECT_EQ(
        std::string(e.what()),
        "[require_bytes] the weights: needs 9 MiB of the memory of device "
        "poisoned, 8 MiB are left. End other programs there, ask for less, or "
        "choose --device cpu");
  }
}

TEST(Devices, OthersShareTheHosts) {
  const testing::PoisonedDevice device;
  EXPECT_GT(available_bytes(device), kMib);
  EXPECT_NO_THROW(require_bytes(device, kMib, "the weights"));
  EXPECT_THROW(require_bytes(device, UINT64_MAX, "the weights"), Error);
}

} // namespace
} // namespace optiq::kernels
