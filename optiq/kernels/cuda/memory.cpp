#include "optiq/kernels/cuda/memory.h"

#include <algorithm>
#include <bit>

#include "optiq/artifacts/size.h"
#include "optiq/base/error.h"

namespace optiq::kernels::cuda {
namespace {

constexpr std::size_t kAlignment = 512;

std::size_t round_up(std::size_t bytes, std::size_t multiple) {
  return (bytes + multiple - 1) / multiple * multiple;
}

/** Few sizes, so that pieces are used again: sixteen from one power of two to
 * the next. */
std::size_t rounded(std::size_t bytes) {
  return round_up(bytes, std::max(kAlignment, std::bit_floor(bytes) / 16));
}

} // namespace

Memory::Memory(
    const Driver& driver,
    std::string name,
    std::uint64_t budget,
    std::function<void()> before_release)
    : driver_(driver),
      name_(std::move(name)),
      budget_(budget),
      before_release_(std::move(before_release)) {}

Memory::~Memory() {
  // Nobody is left to hear of a failure.
  for (const auto& [bytes, pieces] : idle_by_bytes_) {
    for (const DevicePointer address : pieces) {
      driver_.release(address);
    }
  }
  for (const auto& [bytes, pieces] : idle_pinned_) {
    for (void* piece : pieces) {
      driver_.release_host(piece);
    }
  }
}

Buffer Memory::take(std::size_t bytes) {
  return take_piece(rounded(std::max(bytes, kAlignment)));
}

Buffer Memory::take_exactly(std::size_t bytes) {
  return take_piece(round_up(std::max(bytes, kAlignment), kAlignment));
}

Buffer Memory::take_piece(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  DevicePointer address = idle_piece(bytes);
  if (address == 0) {
    address = allocate(bytes);
  }
  used_ += bytes;
  return {
      new DevicePointer(address), [this, bytes](const DevicePointer* piece) {
        give(*piece, bytes);
        delete piece;
      }};
}

DevicePointer Memory::idle_piece(std::size_t bytes) {
  const auto found = idle_by_bytes_.find(bytes);
  if (found == idle_by_bytes_.end() || found->second.empty()) {
    return 0;
  }
  const DevicePointer address = found->second.back();
  found->second.pop_back();
  idle_ -= bytes;
  return address;
}

DevicePointer Memory::allocate(std::size_t bytes) {
  if (used_ + bytes > budget_) {
    fail(
        ErrorKind::Exhausted,
        "[cuda] memory of {}: found {} of {} in use, expected room for {} more. "
        "Use a smaller model or cache, a shorter context or fewer rows at once.",
        name_,
        artifacts::format_size(used_),
        artifacts::format_size(budget_),
        artifacts::format_size(bytes));
  }
  if (used_ + idle_ + bytes > budget_) {
    discard_idle_locked();
  }
  DevicePointer address = 0;
  Result result = driver_.allocate(&address, bytes);
  if (result == kOutOfMemory && idle_ > 0) {
    discard_idle_locked();
    result = driver_.allocate(&address, bytes);
  }
  check(
      driver_,
      result,
      fmt::format(
          "{} of memory of {}, beside {} in use",
          artifacts::format_size(bytes),
          name_,
          artifacts::format_size(used_)));
  return address;
}

void Memory::give(DevicePointer address, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  used_ -= bytes;
  idle_ += bytes;
  idle_by_bytes_[bytes].push_back(address);
}

PinnedBuffer Memory::take_pinned(std::size_t bytes) {
  const std::size_t size = std::bit_ceil(std::max(bytes, kAlignment));
  const std::lock_guard lock(mutex_);
  std::vector<void*>& idle = idle_pinned_[size];
  void* memory = nullptr;
  if (idle.empty()) {
    check(
        driver_,
        driver_.allocate_host(&memory, size, 0),
        fmt::format("{} of pinned RAM", artifacts::format_size(size)));
  } else {
    memory = idle.back();
    idle.pop_back();
  }
  return {memory, [this, size](void* piece) {
            const std::lock_guard giving(mutex_);
            idle_pinned_[size].push_back(piece);
          }};
}

std::uint64_t Memory::used_bytes() const {
  const std::lock_guard lock(mutex_);
  return used_;
}

std::uint64_t Memory::idle_bytes() const {
  const std::lock_guard lock(mutex_);
  return idle_;
}

void Memory::discard_idle() {
  const std::lock_guard lock(mutex_);
  discard_idle_locked();
}

void Memory::discard_idle_locked() {
  if (!idle_by_bytes_.empty()) {
    before_release_();
  }
  for (const auto& [bytes, pieces] : idle_by_bytes_) {
    for (const DevicePointer address : pieces) {
      // Waits for what is running; a failure was another call's.
      check(driver_, driver_.release(address), "giving memory back");
    }
  }
  idle_by_bytes_.clear();
  idle_ = 0;
}

} // namespace optiq::kernels::cuda
