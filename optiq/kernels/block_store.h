#pragma once

#include <cstddef>
#include <cstdint>

namespace optiq::kernels {

/** A piece of a device's cache memory: what it names, only the device knows. */
enum class BlockId : std::uint64_t { None = 0 };

/** Cache memory of a device. Pools count and share; only the device looks into
 * blocks. Not thread-safe. */
class BlockStore {
 public:
  virtual ~BlockStore() = default;

  /** A block of zeros; None when the system refuses. */
  virtual BlockId take(std::size_t bytes) = 0;
  virtual void give(BlockId block, std::size_t bytes) = 0;
  /** `to` becomes what `from` is, now. */
  virtual void copy(BlockId to, BlockId from, std::size_t bytes) = 0;

  /** Bytes of blocks given back whose memory is still held. */
  virtual std::size_t idle_bytes() const = 0;
  /** Whether one of them has this size, and so would be taken next. */
  virtual bool has_idle(std::size_t bytes) const = 0;
  /** Gives the memory of these blocks back to the system. */
  virtual void discard_idle() = 0;
};

} // namespace optiq::kernels
