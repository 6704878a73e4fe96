#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>

namespace optiq {

/**
 * While it lives, this process keeps at most so many bytes in memory. A thread
 * looks every other millisecond, and where pages of mapped files take about
 * what the heap leaves of the limit, it lets go of all: weights come from their
 * file again as they are touched. What is computed does not depend on that, the
 * time it takes does.
 *
 * A heap cannot be let go. system_info and require_ram count what the limit
 * leaves for it, and what is large and lives long belongs into spill.
 */
class RamLimit {
 public:
  /** What is spilled goes to a file without a name in `scratch`. Throws
   * InvalidInput where the process takes about so much already or another limit
   * is in force, Unsupported where the system does not say what a process has
   * in memory, and what ScratchFile throws. */
  RamLimit(std::uint64_t bytes, const std::filesystem::path& scratch);
  ~RamLimit();
  RamLimit(const RamLimit&) = delete;
  RamLimit& operator=(const RamLimit&) = delete;

  /** Bytes that the heap may still take under the limit in force; nothing
   * without one. */
  static std::optional<std::uint64_t> left();
  /** Writable memory from the begin of a page on, of the scratch file of the
   * limit in force: its pages can be let go. Null without a limit, and for
   * less than some pages. Throws Exhausted for a full disk. */
  static std::shared_ptr<std::byte[]> spill(std::size_t bytes);

 private:
  class Watch;
  struct InForce;
  std::unique_ptr<Watch> watch_;
};

} // namespace optiq
