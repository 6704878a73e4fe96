#include "optiq/kernels/cuda/block_memory.h"

#include <algorithm>

#include "optiq/base/error.h"

namespace optiq::kernels::cuda {
namespace {

constexpr std::size_t kAlignment = 256;
constexpr std::size_t kSmallestRegion = std::size_t{2} << 20;
constexpr std::size_t kLargestRegion = std::size_t{64} << 20;

std::size_t aligned(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

} // namespace

BlockMemory::BlockMemory(Card& card, std::size_t region_bytes)
    : card_(card),
      region_bytes_(std::clamp(region_bytes, kSmallestRegion, kLargestRegion)) {
}

BlockId BlockMemory::take(std::size_t bytes) {
  const DevicePointer place = take_place(bytes);
  if (place == 0) {
    return BlockId::None;
  }
  ++region_of(place).used;
  card_.fill_zero(place, bytes);
  return static_cast<BlockId>(place);
}

DevicePointer BlockMemory::take_place(std::size_t bytes) {
  if (has_idle(bytes)) {
    std::vector<DevicePointer>& places = idle_[bytes];
    const DevicePointer place = places.back();
    places.pop_back();
    idle_bytes_ -= bytes;
    return place;
  }
  const std::size_t size = aligned(bytes);
  const auto newest = regions_.find(newest_);
  const bool fits = newest != regions_.end() &&
      newest->second.bytes - newest->second.next >= size;
  if (!fits && !add_region(std::max(region_bytes_, size))) {
    return 0;
  }
  Region& region = regions_.at(newest_);
  const DevicePointer place = *region.memory + region.next;
  region.next += size;
  return place;
}

bool BlockMemory::add_region(std::size_t bytes) {
  try {
    Buffer memory = card_.memory().take_exactly(bytes);
    newest_ = *memory + bytes;
    regions_.emplace(newest_, Region{std::move(memory), bytes, 0, 0});
    return true;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Exhausted) {
      throw;
    }
    return false;
  }
}

void BlockMemory::give(BlockId block, std::size_t bytes) {
  --region_of(address_of(block)).used;
  idle_[bytes].push_back(address_of(block));
  idle_bytes_ += bytes;
}

void BlockMemory::copy(BlockId to, BlockId from, std::size_t bytes) {
  card_.copy_within(address_of(to), address_of(from), bytes);
}

bool BlockMemory::has_idle(std::size_t bytes) const {
  const auto found = idle_.find(bytes);
  return found != idle_.end() && !found->second.empty();
}

void BlockMemory::discard_idle() {
  for (auto& [bytes, places] : idle_) {
    const auto is_free = [this](DevicePointer place) {
      return region_of(place).used == 0;
    };
    idle_bytes_ -= bytes *
        static_cast<std::size_t>(
                       std::count_if(places.begin(), places.end(), is_free));
    std::erase_if(places, is_free);
  }
  std::erase_if(
      regions_, [](const auto& region) { return region.second.used == 0; });
  card_.memory().discard_idle();
}

} // namespace optiq::kernels::cuda
