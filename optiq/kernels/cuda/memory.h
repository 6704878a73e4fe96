#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "optiq/kernels/cuda/driver.h"

namespace optiq::kernels::cuda {

/** A piece of a card's memory, given back with its last owner, who ends
 * before the memory does. */
using Buffer = std::shared_ptr<const DevicePointer>;

/** Memory of a host that a card copies to at full speed. */
using PinnedBuffer = std::shared_ptr<void>;

/**
 * The memory of one card, with a budget. Work runs on one stream in order, so
 * that a piece can be used again as soon as it is given back: who asks next is
 * served after who had it. Pieces given back stay held for the next ones of
 * their size. Any thread may give a piece back.
 */
class Memory {
 public:
  /** `name` is the card's, for messages. The context is current where memory
   * is taken. `before_release` is called before memory goes back to the driver,
   * which waits for what is running, and not for what has yet to be sent. */
  Memory(
      const Driver& driver,
      std::string name,
      std::uint64_t budget,
      std::function<void()> before_release);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  /** For a while: what computing makes. Throws Exhausted, before anything is
   * launched, where the budget or the card's memory ends. */
  Buffer take(std::size_t bytes);
  /** For long: not rounded up for reuse. */
  Buffer take_exactly(std::size_t bytes);
  PinnedBuffer take_pinned(std::size_t bytes);

  std::uint64_t budget() const {
    return budget_;
  }
  /** Bytes of pieces with an owner. */
  std::uint64_t used_bytes() const;
  /** Bytes of pieces without one that are still held. */
  std::uint64_t idle_bytes() const;
  /** Gives idle pieces back to the card. */
  void discard_idle();

 private:
  Buffer take_piece(std::size_t bytes);
  DevicePointer idle_piece(std::size_t bytes);
  DevicePointer allocate(std::size_t bytes);
  void discard_idle_locked();
  void give(DevicePointer address, std::size_t bytes);

  const Driver& driver_;
  std::string name_;
  std::uint64_t budget_;
  std::function<void()> before_release_;
  mutable std::mutex mutex_; // guards what follows
  std::uint64_t used_ = 0;
  std::uint64_t idle_ = 0;
  std::map<std::size_t, std::vector<DevicePointer>> idle_by_bytes_;
  std::map<std::size_t, std::vector<void*>> idle_pinned_;
};

} // namespace optiq::kernels::cuda
