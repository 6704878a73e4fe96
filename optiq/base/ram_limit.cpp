#include "optiq/base/ram_limit.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "optiq/base/checked.h"
#include "optiq/base/error.h"
#include "optiq/base/mapping_guard_impl.h"
#include "optiq/base/scratch_file.h"
#include "optiq/base/system_impl.h"

namespace optiq {
namespace {

constexpr auto kInterval = std::chrono::milliseconds(2);
// What may come between two looks.
constexpr std::uint64_t kMostMargin = std::uint64_t{80} << 20;
// Left for pages of files, whatever the heap asks for: with less, every
// operation would wait for them.
constexpr std::uint64_t kLeastPages = std::uint64_t{48} << 20;
// What is smaller stays on the heap.
constexpr std::size_t kLeastSpilled = std::size_t{64} << 10;
constexpr double kMib = 1 << 20;

ResidentMemory resident_now() {
  const auto memory = resident_memory();
  if (!memory) {
    fail(
        ErrorKind::Unsupported,
        "[RamLimit] this system does not say what a process has in memory: a "
        "limit on it needs Linux");
  }
  return *memory;
}

} // namespace

class RamLimit::Watch {
 public:
  Watch(std::uint64_t bytes, const std::filesystem::path& scratch)
      : bytes_(bytes),
        own_pages_(resident_now().file),
        scratch_(std::make_shared<ScratchFile>(scratch)),
        thread_([this] { look_until_stopped(); }) {}
  ~Watch() {
    {
      const std::lock_guard lock(mutex_);
      is_stopped_ = true;
    }
    stopped_.notify_all();
    thread_.join();
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  /** Of the limit, beside the heap and the program's own pages. */
  std::uint64_t left() const {
    return left_beside(resident_now());
  }
  std::shared_ptr<ScratchFile> scratch() const {
    return scratch_;
  }

 private:
  std::uint64_t left_beside(const ResidentMemory& memory) const {
    return saturated_sub(bytes_, memory.heap + own_pages_);
  }

  void look_until_stopped() {
    std::unique_lock lock(mutex_);
    while (
        !stopped_.wait_for(lock, kInterval, [this] { return is_stopped_; })) {
      const auto memory = resident_memory();
      if (!memory) {
        continue; // no file could be opened: the next look will tell
      }
      const std::uint64_t pages = saturated_sub(memory->file, own_pages_);
      const std::uint64_t room = left_beside(*memory);
      if (pages > room - std::min(room / 4, kMostMargin)) {
        drop_mapped_pages();
      }
    }
  }

  const std::uint64_t bytes_;
  const std::uint64_t own_pages_; // of the program and its libraries
  const std::shared_ptr<ScratchFile> scratch_;
  std::mutex mutex_; // guards is_stopped_
  std::condition_variable stopped_;
  bool is_stopped_ = false;
  std::thread thread_; // last: it uses the others
};

/** The limit in force. */
struct RamLimit::InForce {
  std::mutex mutex; // guards the rest
  Watch* watch = nullptr;

  static InForce& instance() {
    static InForce in_force;
    return in_force;
  }
};

RamLimit::RamLimit(std::uint64_t bytes, const std::filesystem::path& scratch) {
  const ResidentMemory memory = resident_now();
  const std::uint64_t least = memory.heap + memory.file + 2 * kLeastPages;
  if (bytes < least) {
    fail(
        ErrorKind::InvalidInput,
        "[RamLimit] a limit of {:.0f} MiB: expected {:.0f} MiB at least, of which "
        "the process has {:.0f} already",
        static_cast<double>(bytes) / kMib,
        static_cast<double>(least) / kMib,
        static_cast<double>(memory.heap + memory.file) / kMib);
  }
  InForce& in_force = InForce::instance();
  const std::lock_guard lock(in_force.mutex);
  if (in_force.watch != nullptr) {
    fail(ErrorKind::InvalidInput, "[RamLimit] another limit is in force");
  }
  watch_ = std::make_unique<Watch>(bytes, scratch);
  in_force.watch = watch_.get();
}

RamLimit::~RamLimit() {
  InForce& in_force = InForce::instance();
  const std::lock_guard lock(in_force.mutex);
  in_force.watch = nullptr;
}

std::optional<std::uint64_t> RamLimit::left() {
  InForce& in_force = InForce::instance();
  const std::lock_guard lock(in_force.mutex);
  if (in_force.watch == nullptr) {
    return std::nullopt;
  }
  return saturated_sub(in_force.watch->left(), kLeastPages);
}

std::shared_ptr<std::byte[]> RamLimit::spill(std::size_t bytes) {
  InForce& in_force = InForce::instance();
  const std::lock_guard lock(in_force.mutex);
  return in_force.watch == nullptr || bytes < kLeastSpilled
      ? nullptr
      : ScratchFile::map_more(in_force.watch->scratch(), bytes);
}

} // namespace optiq
