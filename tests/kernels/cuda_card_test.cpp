#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.h"

#include "optiq/io/array.h"
#include "optiq/kernels/cuda/block_memory.h"
#include "optiq/kernels/cuda/card.h"
#include "optiq/kernels/cuda/cuda_device.h"
#include "optiq/kernels/devices.h"

/** The host's side of a card on a driver whose card is this process's memory:
 * accounting, errors, arrays. */
namespace optiq::kernels::cuda {
namespace {

using test::expect_error;

constexpr std::size_t kCardBytes = std::size_t{1} << 30;

/** What the driver of this test was asked for. */
struct Asked {
  std::map<DevicePointer, std::size_t> allocated; // bytes by address
  std::size_t bytes = 0;
  int launches = 0;
};

Asked& asked() {
  static Asked counts;
  return counts;
}

Result allocate(DevicePointer* address, std::size_t bytes) {
  if (asked().bytes + bytes > kCardBytes) {
    return kOutOfMemory;
  }
  *address = reinterpret_cast<DevicePointer>(std::malloc(bytes));
  asked().allocated[*address] = bytes;
  asked().bytes += bytes;
  return 0;
}

Result release(DevicePointer address) {
  asked().bytes -= asked().allocated.at(address);
  asked().allocated.erase(address);
  std::free(reinterpret_cast<void*>(address));
  return 0;
}

Result say_nothing(Result error, const char** text) {
  *text = error == kOutOfMemory ? "out of memory" : "it broke";
  return 0;
}

/** A driver of one card. */
Driver pretended_driver() {
  Driver d{};
  d.error_name = say_nothing;
  d.error_text = say_nothing;
  d.card_count = [](int* count) { return *count = 1, 0; };
  d.card = [](CardHandle* card, int index) { return *card = index, 0; };
  d.card_name = [](char* name, int, CardHandle) {
    return std::strcpy(name, "Pretended"), 0;
  };
  d.card_attribute = [](int* value, int attribute, CardHandle) {
    *value = attribute == static_cast<int>(Attribute::Major) ? 9 : 0;
    return 0;
  };
  d.card_memory = [](std::size_t* bytes, CardHandle) {
    return *bytes = kCardBytes, 0;
  };
  d.retain_context = [](Context*, CardHandle) { return 0; };
  d.set_context = [](Context) { return 0; };
  d.memory_info = [](std::size_t* free_bytes, std::size_t* total_bytes) {
    *free_bytes = kCardBytes;
    *total_bytes = kCardBytes;
    return 0;
  };
  d.allocate = allocate;
  d.release = release;
  d.copy_in = [](DevicePointer to, const void* from, std::size_t n, Stream) {
    return std::memcpy(reinterpret_cast<void*>(to), from, n), 0;
  };
  d.copy_out = [](void* to, DevicePointer from, std::size_t n, Stream) {
    return std::memcpy(to, reinterpret_cast<void*>(from), n), 0;
  };
  d.copy_within =
      [](DevicePointer to, DevicePointer from, std::size_t n, Stream) {
        void* target = reinterpret_cast<void*>(to);
        return std::memcpy(target, reinterpret_cast<void*>(from), n), 0;
      };
  d.fill = [](DevicePointer to, unsigned char value, std::size_t n, Stream) {
    return std::memset(reinterpret_cast<void*>(to), value, n), 0;
  };
  d.create_stream = [](Stream*, unsigned) { return 0; };
  d.synchronize = [](Stream) { return 0; };
  d.load_module = [](Module*, const void*) { return 0; };
  d.count_functions = [](unsigned* count, Module) { return *count = 1, 0; };
  d.list_functions = [](Function* functions, unsigned, Module) {
    return *functions = nullptr, 0;
  };
  d.function_name = [](const char** name, Function) {
    return *name = "known", 0;
  };
  d.launch = [](const LaunchConfig*, Function, void**, void**) {
    ++asked().launches;
    return 0;
  };
  return d;
}

constexpr std::string_view kImage = "not looked into";

class CudaCard : public ::testing::Test {
 protected:
  Driver driver_ = pretended_driver();
  Card card_{driver_, 0, {&kImage, 1}};
};

TEST_F(CudaCard, CountsEveryByte) {
  const std::uint64_t before = card_.memory().used_bytes();
  {
    const Buffer a = card_.memory().take_exactly(1000);
    const Buffer b = card_.memory().take(513);
    EXPECT_EQ(card_.memory().used_bytes() - before, 1024u + 1024u);
  }
  EXPECT_EQ(card_.memory().used_bytes(), before);
  EXPECT_EQ(card_.memory().idle_bytes(), 2048u);
  card_.memory().discard_idle();
  EXPECT_EQ(card_.memory().idle_bytes(), 0u);
  EXPECT_EQ(asked().bytes, 0u);
}

TEST_F(CudaCard, UsesAPieceAgain) {
  const DevicePointer first = *card_.memory().take(5000);
  EXPECT_EQ(*card_.memory().take(5100), first);
}

TEST_F(CudaCard, RefusesWhatIsOverTheBudgetBeforeItAsks) {
  const Buffer half = card_.memory().take_exactly(kCardBytes / 2);
  const std::size_t asked_before = asked().bytes;
  expect_error(ErrorKind::Exhausted, {"Pretended", "in use"}, [&] {
    card_.memory().take_exactly(kCardBytes / 2);
  });
  EXPECT_EQ(asked().bytes, asked_before);
  EXPECT_EQ(card_.memory().used_bytes(), kCardBytes / 2);
}

TEST_F(CudaCard, GivesIdlePiecesBackForOthers) {
  card_.memory().take_exactly(kCardBytes / 2); // and given back
  const Buffer more = card_.memory().take_exactly(kCardBytes / 2 + 512);
  EXPECT_EQ(card_.memory().idle_bytes(), 0u);
}

TEST_F(CudaCard, BlocksLieInRegions) {
  BlockMemory blocks(card_, std::size_t{1} << 20);
  const BlockId a = blocks.take(3000);
  const BlockId b = blocks.take(3000);
  EXPECT_EQ(address_of(b) - address_of(a), 3072u);
  auto* bytes = reinterpret_cast<char*>(address_of(a));
  EXPECT_EQ(bytes[2999], 0);
  bytes[0] = 7;
  blocks.copy(b, a, 3000);
  EXPECT_EQ(*reinterpret_cast<char*>(address_of(b)), 7);
  blocks.give(a, 3000);
  EXPECT_TRUE(blocks.has_idle(3000));
  EXPECT_EQ(blocks.idle_bytes(), 3000u);
  blocks.discard_idle(); // its region is still in use
  EXPECT_EQ(blocks.idle_bytes(), 3000u);
  EXPECT_EQ(blocks.take(3000), a);
  EXPECT_EQ(bytes[0], 0);
  blocks.give(a, 3000);
  blocks.give(b, 3000);
  blocks.discard_idle();
  EXPECT_EQ(blocks.idle_bytes(), 0u);
  EXPECT_EQ(blocks.take(2 * kCardBytes), BlockId::None);
}

TEST_F(CudaCard, ArraysAreHandles) {
  const mx::array x = card_.make_array({4, 8});
  const DevicePointer address = card_.address("test", x);
  EXPECT_EQ(card_.address("test", card_.view(x, 16, {2, 8})), address + 64);
  expect_error(ErrorKind::InvalidInput, {"[test]", "cuda:0"}, [&] {
    card_.address("test", io::make_array({4, 8}, mx::float32));
  });
  const std::uint64_t used = card_.memory().used_bytes();
  {
    const mx::array view = card_.view(card_.make_array({64, 64}), 0, {64});
    EXPECT_GT(card_.memory().used_bytes(), used); // a view keeps what it shows
  }
  EXPECT_EQ(card_.memory().used_bytes(), used);
}

TEST_F(CudaCard, LaunchesWhatItKnows) {
  const int before = asked().launches;
  card_.launch("known", {.x = 2}, 1);
  card_.launch("known", {.x = 0}, 1);
  card_.send();
  EXPECT_EQ(asked().launches, before + 1);
  expect_error(ErrorKind::Internal, {"unknown"}, [&] {
    card_.launch("unknown", {}, 1);
  });
}

TEST_F(CudaCard, SendsWhatWaitsBeforeItUsesTheStream) {
  std::uint32_t number = 0;
  const Buffer memory = card_.memory().take(512);
  const std::vector<std::function<void()>> uses{
      [&] { card_.copy_in(*memory, &number, 4); },
      [&] { card_.copy_out(&number, *memory, 4); },
      [&] { card_.copy_within(*memory, *memory + 4, 4); },
      [&] { card_.fill_zero(*memory, 4); },
      [&] { card_.synchronize(); },
      // Who waits may use what goes back to the driver.
      [&] {
        card_.memory().take(2048);
        card_.memory().discard_idle();
      }};
  for (const auto& use : uses) {
    const int before = asked().launches;
    card_.launch("known", {.x = 2}, 1);
    EXPECT_EQ(asked().launches, before);
    use();
    EXPECT_EQ(asked().launches, before + 1);
  }
}

TEST_F(CudaCard, SaysWhatTheDriverSays) {
  driver_.synchronize = [](Stream) { return 700; };
  expect_error(ErrorKind::Internal, {"it broke", "700", "Pretended"}, [&] {
    card_.synchronize();
  });
}

TEST(CudaCards, AreRefusedByName) {
  const Driver driver = pretended_driver();
  expect_error(ErrorKind::NotFound, {"card 3", "1 cards"}, [&] {
    Card(driver, 3, {&kImage, 1});
  });
  expect_error(ErrorKind::Unsupported, {"Pretended", "nvcc"}, [&] {
    Card(driver, 0, {});
  });
  Driver old = driver;
  old.card_attribute = [](int* value, int, CardHandle) {
    return *value = 7, 0;
  };
  expect_error(ErrorKind::Unsupported, {"7.7"}, [&] {
    Card(old, 0, {&kImage, 1});
  });
}

TEST(CudaDriver, IsNotThereOrIsNone) {
  expect_error(ErrorKind::NotFound, {"libno_such_driver.so"}, [] {
    open_driver("libno_such_driver.so");
  });
  expect_error(
      ErrorKind::Unsupported, {"cuInit"}, [] { open_driver("libc.so.6"); });
}

TEST(Devices, NamesOfCards) {
  for (const char* name : {"auto", "cpu", "mlx", "cuda", "cuda:0", "cuda:12"}) {
    EXPECT_TRUE(is_device_name(name)) << name;
  }
  for (const char* name : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda0"}) {
    EXPECT_FALSE(is_device_name(name)) << name;
  }
}

} // namespace
} // namespace optiq::kernels::cuda
