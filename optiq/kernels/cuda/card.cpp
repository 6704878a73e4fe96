#include "optiq/kernels/cuda/card.h"

#include <algorithm>
#include <array>
#include <utility>

#include "optiq/base/error.h"
#include "optiq/io/array.h"
#include "optiq/kernels/affine_checks.h"
#include "optiq/kernels/cuda/arguments.h"

namespace optiq::kernels::cuda {
namespace {

constexpr int kOldestMajor = 8; // bfloat16 products on tensor cores
// Left for the driver's own needs while a model runs.
constexpr std::uint64_t kReserve = std::uint64_t{256} << 20;
constexpr std::size_t kParcelAlignment = 16;
// What a kernel may have of shared memory without asking.
constexpr std::size_t kSharedForAll = std::size_t{48} << 10;

CardInfo info_of(const Driver& driver, int index) {
  CardHandle card = 0;
  check(driver, driver.card(&card, index), "a card");
  std::array<char, 256> name{};
  check(
      driver,
      driver.card_name(name.data(), static_cast<int>(name.size()), card),
      "a card's name");
  const auto attribute = [&](Attribute which) {
    int value = 0;
    check(
        driver,
        driver.card_attribute(&value, static_cast<int>(which), card),
        "a card's attributes");
    return value;
  };
  std::size_t bytes = 0;
  check(driver, driver.card_memory(&bytes, card), "a card's memory");
  return {
      .index = index,
      .name = name.data(),
      .major = attribute(Attribute::Major),
      .minor = attribute(Attribute::Minor),
      .multiprocessors = attribute(Attribute::Multiprocessors),
      .total_bytes = bytes};
}

int count_cards(const Driver& driver) {
  int count = 0;
  check(driver, driver.card_count(&count), "counting cards");
  return count;
}

/** The card, or throws what keeps the kernels from running there. */
CardInfo checked_card(const Driver& driver, int index, std::size_t n_images) {
  const int count = count_cards(driver);
  if (index < 0 || index >= count) {
    fail(
        ErrorKind::NotFound,
        "[cuda] card {}: found {} cards, expected one of that index. Choose "
        "cuda:0 to cuda:{}, or --device cpu.",
        index,
        count,
        std::max(0, count - 1));
  }
  CardInfo info = info_of(driver, index);
  if (n_images == 0) {
    fail(
        ErrorKind::Unsupported,
        "[cuda] {}: found no kernels in this build, expected those that nvcc "
        "makes. Run scripts/setup --cuda and build again, or choose --device "
        "cpu.",
        info.name);
  }
  if (info.major < kOldestMajor) {
    fail(
        ErrorKind::Unsupported,
        "[cuda] {}: found compute capability {}.{}, expected {}.0 or newer. "
        "Choose --device cpu.",
        info.name,
        info.major,
        info.minor,
        kOldestMajor);
  }
  return info;
}

} // namespace

std::size_t Parcel::add_bytes(std::span<const std::byte> values) {
  const std::size_t at = (bytes_.size() + kParcelAlignment - 1) /
      kParcelAlignment * kParcelAlignment;
  bytes_.resize(at);
  bytes_.insert(bytes_.end(), values.begin(), values.end());
  return at;
}

Card::Card(
    const Driver& driver,
    int index,
    std::span<const std::string_view> images)
    : driver_(driver), info_(checked_card(driver, index, images.size())) {
  CardHandle card = 0;
  check(driver_, driver_.card(&card, index), "a card");
  check(driver_, driver_.retain_context(&context_, card), "a card's context");
  use();
  check(
      driver_, driver_.create_stream(&stream_, /*not blocking*/ 1), "a stream");
  for (const std::string_view image : images) {
    load_kernels(image);
  }
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  check(driver_, driver_.memory_info(&free_bytes, &total_bytes), "free memory");
  memory_ = std::make_unique<Memory>(
      driver_,
      fmt::format("cuda:{} ({})", index, info_.name),
      free_bytes - std::min<std::uint64_t>(kReserve, free_bytes / 2));
}

void Card::use() {
  // Threads come and go; the context is a property of the thread.
  check(driver_, driver_.set_context(context_), "a card's context");
}

void Card::load_kernels(std::string_view image) {
  Module module = nullptr;
  check(
      driver_,
      driver_.load_module(&module, image.data()),
      "loading kernels for " + info_.name);
  unsigned count = 0;
  check(driver_, driver_.count_functions(&count, module), "counting kernels");
  std::vector<Function> functions(count);
  check(
      driver_,
      driver_.list_functions(functions.data(), count, module),
      "listing kernels");
  for (const Function function : functions) {
    const char* name = nullptr;
    check(driver_, driver_.function_name(&name, function), "a kernel's name");
    kernels_.emplace(name, Kernel{.function = function});
  }
}

Function Card::function_of(const char* kernel, std::size_t shared_bytes) {
  const auto at = kernels_.find(kernel);
  if (at == kernels_.end()) {
    fail(
        ErrorKind::Internal,
        "[cuda] found no kernel {} in this build, expected all that are "
        "launched.",
        kernel);
  }
  Kernel& found = at->second;
  if (shared_bytes > std::max(kSharedForAll, found.shared_bytes)) {
    check(
        driver_,
        driver_.set_function(
            found.function, kMaxDynamicShared, static_cast<int>(shared_bytes)),
        fmt::format("{} bytes of shared memory for {}", shared_bytes, kernel));
    found.shared_bytes = shared_bytes;
  }
  return found.function;
}

void Card::launch_with(
    const char* kernel,
    const Grid& grid,
    const void* arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) {
    return;
  }
  use();
  std::array<void*, 1> pointers{const_cast<void*>(arguments)};
  check(
      driver_,
      driver_.launch(
          function_of(kernel, grid.shared_bytes),
          static_cast<unsigned>(grid.x),
          static_cast<unsigned>(grid.y),
          static_cast<unsigned>(grid.z),
          grid.threads,
          1,
          1,
          static_cast<unsigned>(grid.shared_bytes),
          stream_,
          pointers.data(),
          nullptr),
      kernel);
}

void Card::copy_in(DevicePointer to, const void* from, std::size_t bytes) {
  if (bytes > 0) {
    use();
    // The host's memory may change as soon as this returns: it is not pinned.
    check(driver_, driver_.copy_in(to, from, bytes, stream_), "a copy in");
  }
}

void Card::copy_out(void* to, DevicePointer from, std::size_t bytes) {
  if (bytes > 0) {
    use();
    check(driver_, driver_.copy_out(to, from, bytes, stream_), "a copy out");
  }
  synchronize();
}

void Card::copy_within(
    DevicePointer to,
    DevicePointer from,
    std::size_t bytes) {
  if (bytes > 0) {
    use();
    check(driver_, driver_.copy_within(to, from, bytes, stream_), "a copy");
  }
}

void Card::fill_zero(DevicePointer to, std::size_t bytes) {
  use();
  check(driver_, driver_.fill(to, 0, bytes, stream_), "filling memory");
}

Buffer Card::send(const Parcel& parcel) {
  Buffer buffer = memory().take(parcel.bytes().size());
  copy_in(*buffer, parcel.bytes().data(), parcel.bytes().size());
  return buffer;
}

void Card::synchronize() {
  use();
  check(driver_, driver_.synchronize(stream_), "waiting for " + info_.name);
}

double Card::measure_read_bandwidth(std::size_t bytes, int repeats) {
  const Buffer region = memory().take_exactly(bytes);
  const Buffer result = memory().take(sizeof(std::uint32_t));
  fill_zero(*region, bytes);
  const ReadAll arguments{
      reinterpret_cast<const std::uint32_t*>(*region),
      static_cast<long long>(bytes / 16),
      reinterpret_cast<std::uint32_t*>(*result)};
  Event begin = nullptr;
  Event end = nullptr;
  check(driver_, driver_.create_event(&begin, 0), "an event");
  check(driver_, driver_.create_event(&end, 0), "an event");
  float best = 0.f;
  for (int i = 0; i <= repeats; ++i) { // the first warms up
    check(driver_, driver_.record_event(begin, stream_), "an event");
    launch("read_all", {.x = bytes / 16 / 1024, .threads = 256}, arguments);
    check(driver_, driver_.record_event(end, stream_), "an event");
    synchronize();
    float took = 0.f;
    check(driver_, driver_.elapsed_ms(&took, begin, end), "an event's time");
    best = i <= 1 ? took : std::min(best, took);
  }
  check(driver_, driver_.release_event(begin), "an event");
  check(driver_, driver_.release_event(end), "an event");
  return static_cast<double>(bytes) / (1e-3 * best);
}

mx::array Card::make_array(const mx::Shape& shape, mx::Dtype dtype) {
  std::size_t bytes = mx::size_of(dtype);
  for (const auto n : shape) {
    bytes *= static_cast<std::size_t>(n);
  }
  Buffer buffer = memory().take(bytes);
  const DevicePointer address = *buffer;
  return hand_out(address, std::move(buffer), shape, dtype);
}

mx::array
Card::view(const mx::array& x, std::size_t offset, const mx::Shape& shape) {
  const Handle& handle = handle_of("view", x);
  return hand_out(
      handle.address + offset * x.itemsize(), handle.buffer, shape, x.dtype());
}

DevicePointer Card::address(const char* function, const mx::array& x) const {
  return handle_of(function, x).address;
}

mx::array Card::hand_out(
    DevicePointer address,
    Buffer buffer,
    const mx::Shape& shape,
    mx::Dtype dtype) {
  const std::shared_ptr<Handle> handle(
      new Handle{.address = address, .buffer = std::move(buffer)},
      [this](const Handle* ended) {
        {
          const std::lock_guard lock(mutex_);
          handles_.erase(&ended->address);
        }
        delete ended;
      });
  const void* data = &handle->address;
  {
    const std::lock_guard lock(mutex_);
    handles_.emplace(data, handle.get());
  }
  return io::view_array(data, shape, dtype, handle);
}

const Card::Handle& Card::handle_of(const char* function, const mx::array& x)
    const {
  // An array that MLX has yet to compute has no data, and is not ours.
  const void* data = x.is_available() ? x.data<void>() : nullptr;
  const std::lock_guard lock(mutex_);
  const auto found = handles_.find(data);
  if (found == handles_.end()) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] found an array {} that does not lie on cuda:{}, expected one "
        "that this device made. Upload it first.",
        function,
        shape_text(x),
        info_.index);
  }
  return *found->second;
}

std::vector<CardInfo> list_cards(const Driver& driver) {
  std::vector<CardInfo> cards;
  for (int i = 0; i < count_cards(driver); ++i) {
    cards.push_back(info_of(driver, i));
  }
  return cards;
}

} // namespace optiq::kernels::cuda
