#include "optiq/kernels/cpu/block_memory.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "optiq/base/pages.h"

namespace optiq::kernels::cpu {
namespace {

constexpr std::size_t kAlignment = 64; // a cache line, a vector
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kLargestRegion = std::size_t{32} << 20;

std::size_t round_up(std::size_t bytes, std::size_t multiple) {
  return (bytes + multiple - 1) / multiple * multiple;
}

std::byte* pop(std::vector<std::byte*>& places) {
  std::byte* const block = places.back();
  places.pop_back();
  return block;
}

} // namespace

BlockMemory::BlockMemory(std::size_t region_bytes)
    : region_bytes_(round_up(
          std::clamp(region_bytes, kHugePage, kLargestRegion),
          kHugePage)) {}

BlockMemory::Places& BlockMemory::places_of(std::size_t bytes) {
  const auto found =
      std::find_if(places_.begin(), places_.end(), [=](const Places& places) {
        return places.bytes == bytes;
      });
  return found != places_.end() ? *found
                                : places_.emplace_back(Places{bytes, {}, {}});
}

BlockId BlockMemory::take(std::size_t bytes) {
  std::byte* const place = take_place(bytes);
  if (place == nullptr) {
    return BlockId::None;
  }
  std::memset(place, 0, bytes);
  return id_of(place);
}

std::byte* BlockMemory::take_place(std::size_t bytes) {
  Places& places = places_of(bytes);
  if (!places.idle.empty()) {
    idle_bytes_ -= bytes;
    return pop(places.idle);
  }
  if (!places.discarded.empty()) {
    return pop(places.discarded);
  }
  const std::size_t size = round_up(bytes, kAlignment);
  if (size > left_) {
    const std::size_t region =
        std::max(region_bytes_, round_up(size, kHugePage));
    auto* const memory =
        static_cast<std::byte*>(std::aligned_alloc(kHugePage, region));
    if (memory == nullptr) {
      return nullptr;
    }
    advise_huge_pages(memory, region);
    regions_.emplace_back(memory);
    next_ = memory;
    left_ = region;
  }
  left_ -= size;
  return std::exchange(next_, next_ + size);
}

void BlockMemory::give(BlockId block, std::size_t bytes) {
  places_of(bytes).idle.push_back(address_of(block));
  idle_bytes_ += bytes;
}

void BlockMemory::copy(BlockId to, BlockId from, std::size_t bytes) {
  std::memcpy(address_of(to), address_of(from), bytes);
}

bool BlockMemory::has_idle(std::size_t bytes) const {
  return std::any_of(places_.begin(), places_.end(), [=](const Places& places) {
    return places.bytes == bytes && !places.idle.empty();
  });
}

void BlockMemory::discard_idle() {
  for (Places& places : places_) {
    for (std::byte* block : places.idle) {
      discard_pages(block, places.bytes);
    }
    places.discarded.insert(
        places.discarded.end(), places.idle.begin(), places.idle.end());
    places.idle.clear();
  }
  idle_bytes_ = 0;
}

} // namespace optiq::kernels::cpu
