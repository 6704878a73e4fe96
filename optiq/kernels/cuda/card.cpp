#include "optiq/kernels/cuda/card.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "optiq/base/error.h"
#include "optiq/io/array.h"
#include "optiq/kernels/affine_checks.h"
#include "optiq/kernels/cuda/arguments.h"

namespace optiq::kernels::cuda {
namespace {

constexpr int kOldestMajor = 8; // bfloat16 products on tensor cores
constexpr int kOverlappingMajor = 9; // begin_kernel() of instructions.cuh
// Left for the driver's own needs while a model runs.
constexpr std::uint64_t kReserve = std::uint64_t{256} << 20;
constexpr std::size_t kParcelAlignment = 16;
constexpr unsigned kStoreThreads = 256;
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
      .shared_bytes =
          static_cast<std::size_t>(attribute(Attribute::SharedPerBlock)),
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

/** Writes bytes to the card by a kernel that has them for arguments. Whether
 * they fit. */
template <int kWords>
bool store(Card& card, std::span<const std::byte> bytes, DevicePointer to) {
  constexpr std::size_t kWordBytes = sizeof(std::uint32_t);
  StoreWords<kWords> args;
  if (bytes.size() > sizeof(args.data)) {
    return false;
  }
  args.to = reinterpret_cast<std::uint32_t*>(to);
  args.words = static_cast<int>((bytes.size() + kWordBytes - 1) / kWordBytes);
  std::memcpy(args.data, bytes.data(), bytes.size());
  const std::string kernel = fmt::format("store_words_{}", kWords);
  card.launch(
      kernel.c_str(),
      {.x = static_cast<std::size_t>(
           (args.words + kStoreThreads - 1) / kStoreThreads),
       .threads = kStoreThreads},
      args);
  return true;
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
  queue_ = std::make_unique<LaunchQueue>(
      driver_, stream_, info_.major >= kOverlappingMajor);
  for (const std::string_view image : images) {
    load_kernels(image);
  }
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  check(driver_, driver_.memory_info(&free_bytes, &total_bytes), "free memory");
  memory_ = std::make_unique<Memory>(
      driver_,
      fmt::format("cuda:{} ({})", index, info_.name),
      free_bytes - std::min<std::uint64_t>(kReserve, free_bytes / 2),
      [this] { send(); });
}

void Card::use() {
  // Threads come and go; the context is a property of the thread, and nobody
  // else of this process sets one.
  thread_local const Card* current = nullptr;
  if (current != this) {
    check(driver_, driver_.set_context(context_), "a card's context");
    current = this;
  }
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

Launch Card::launch_of(const char* kernel, const Grid& grid) {
  const auto at = kernels_.find(kernel);
  if (at == kernels_.end()) {
    fail(
        ErrorKind::Internal,
        "[cuda] found no kernel {} in this build, expected all that are "
        "launched.",
        kernel);
  }
  auto& [name, found] = *at;
  if (grid.shared_bytes > std::max(kSharedForAll, found.shared_bytes)) {
    check(
        driver_,
        driver_.set_function(
            found.function,
            kMaxDynamicShared,
            static_cast<int>(grid.shared_bytes)),
        fmt::format(
            "{} bytes of shared memory for {}", grid.shared_bytes, kernel));
    found.shared_bytes = grid.shared_bytes;
  }
  return {
      .kernel = name.data(),
      .function = found.function,
      .grid =
          {static_cast<unsigned>(grid.x),
           static_cast<unsigned>(grid.y),
           static_cast<unsigned>(grid.z)},
      .threads = grid.threads,
      .shared_bytes = static_cast<unsigned>(grid.shared_bytes)};
}

void Card::launch_with(
    const char* kernel,
    const Grid& grid,
    const void* arguments,
    std::size_t bytes) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) {
    return;
  }
  use();
  const Launch launch = launch_of(kernel, grid);
  OpProfile* profile = OpProfile::active();
  if (profile == nullptr) {
    queue_->add(launch, arguments, bytes);
    return;
  }
  // Alone on the card: what ran before is done, what comes after waits.
  const double seconds =
      seconds_of([&] { queue_->add(launch, arguments, bytes); });
  const OpKey key{
      .name = launch.kernel, .in = grid.in, .out = grid.out, .bits = grid.bits};
  profile->add(key, seconds, grid.bytes);
}

template <class F>
double Card::seconds_of(const F& work) {
  if (begin_ == nullptr) {
    check(driver_, driver_.create_event(&begin_, 0), "an event");
    check(driver_, driver_.create_event(&end_, 0), "an event");
  }
  synchronize();
  check(driver_, driver_.record_event(begin_, stream_), "an event");
  work();
  queue_->send();
  check(driver_, driver_.record_event(end_, stream_), "an event");
  synchronize();
  float milliseconds = 0.f;
  check(
      driver_,
      driver_.elapsed_ms(&milliseconds, begin_, end_),
      "an event's time");
  return 1e-3 * milliseconds;
}

void Card::send() {
  use();
  queue_->send();
}

void Card::copy_in(DevicePointer to, const void* from, std::size_t bytes) {
  if (bytes > 0) {
    send();
    // The host's memory may change as soon as this returns: it is not pinned.
    check(driver_, driver_.copy_in(to, from, bytes, stream_), "a copy in");
  }
}

void Card::copy_out(void* to, DevicePointer from, std::size_t bytes) {
  if (bytes > 0) {
    send();
    check(driver_, driver_.copy_out(to, from, bytes, stream_), "a copy out");
  }
  synchronize();
}

void Card::copy_within(
    DevicePointer to,
    DevicePointer from,
    std::size_t bytes) {
  if (bytes > 0) {
    send();
    check(driver_, driver_.copy_within(to, from, bytes, stream_), "a copy");
  }
}

void Card::fill_zero(DevicePointer to, std::size_t bytes) {
  send();
  check(driver_, driver_.fill(to, 0, bytes, stream_), "filling memory");
}

Buffer Card::send(const Parcel& parcel) {
  const std::span<const std::byte> bytes = parcel.bytes();
  Buffer buffer = memory().take(bytes.size());
  // Little travels with a launch: a copy would be waited for on both sides.
  if (!store<kFewWords>(*this, bytes, *buffer) &&
      !store<kSomeWords>(*this, bytes, *buffer) &&
      !store<kManyWords>(*this, bytes, *buffer)) {
    copy_in(*buffer, bytes.data(), bytes.size());
  }
  return buffer;
}

DevicePointer Card::counters(std::size_t n) {
  if (n > n_counters_) {
    constexpr std::size_t kLeast = 4096;
    n_counters_ = std::max(n, kLeast);
    counters_ = memory().take_exactly(sizeof(std::uint32_t) * n_counters_);
    fill_zero(*counters_, sizeof(std::uint32_t) * n_counters_);
  }
  return counters_ ? *counters_ : 0;
}

void Card::synchronize() {
  send();
  check(driver_, driver_.synchronize(stream_), "waiting for " + info_.name);
  queue_->note_idle();
}

double Card::measure_read_bandwidth(std::size_t bytes, int repeats) {
  const Buffer region = memory().take_exactly(bytes);
  const Buffer result = memory().take(sizeof(std::uint32_t));
  fill_zero(*region, bytes);
  const ReadAll arguments{
      reinterpret_cast<const std::uint32_t*>(*region),
      static_cast<long long>(bytes / 16),
      reinterpret_cast<std::uint32_t*>(*result)};
  double best = 0;
  for (int i = 0; i <= repeats; ++i) { // the first warms up
    const double took = seconds_of([&] {
      launch("read_all", {.x = bytes / 16 / 1024, .threads = 256}, arguments);
    });
    best = i <= 1 ? took : std::min(best, took);
  }
  return static_cast<double>(bytes) / best;
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

const Card::Handle* Card::find_handle(const mx::array& x) const {
  // An array that MLX has yet to compute has no data, and is not ours.
  const void* data = x.is_available() ? x.data<void>() : nullptr;
  const std::lock_guard lock(mutex_);
  const auto found = handles_.find(data);
  return found == handles_.end() ? nullptr : found->second;
}

const Card::Handle& Card::handle_of(const char* function, const mx::array& x)
    const {
  const Handle* handle = find_handle(x);
  if (handle == nullptr) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] found an array {} that does not lie on cuda:{}, expected one "
        "that this device made. Upload it first.",
        function,
        shape_text(x),
        info_.index);
  }
  return *handle;
}

bool Card::holds(const mx::array& x) const {
  return find_handle(x) != nullptr;
}

Buffer Card::buffer_of(const mx::array& x) const {
  const Handle& handle = handle_of("buffer_of", x);
  struct Place {
    Buffer owner;
    DevicePointer address;
  };
  const auto place =
      std::make_shared<const Place>(Place{handle.buffer, handle.address});
  return {place, &place->address};
}

std::vector<CardInfo> list_cards(const Driver& driver) {
  std::vector<CardInfo> cards;
  const int count = count_cards(driver);
  cards.reserve(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) {
    cards.push_back(info_of(driver, i));
  }
  return cards;
}

} // namespace optiq::kernels::cuda
