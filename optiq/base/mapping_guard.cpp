#include "optiq/base/mapping_guard.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include "optiq/base/error.h"
#include "optiq/base/mapping_guard_impl.h"

namespace optiq {

namespace fs = std::filesystem;

/** The handler reads begin and end and sets is_damaged; all else is guarded by
 * the registry's mutex. Slots are never freed: a handler may look at any. */
struct MappingSlot {
  std::atomic<std::uintptr_t> begin{0}; // 0: the slot is free
  std::atomic<std::uintptr_t> end{0};
  std::atomic<bool> is_damaged{false};
  bool is_reported = false;
  fs::path path;
  MappingSlot* next = nullptr;
};

namespace {

// A signal handler reaches only static storage. The list only grows.
std::atomic<MappingSlot*> first_slot{nullptr};
std::atomic<bool> may_be_damaged{false};
struct sigaction previous_action;

struct Registry {
  std::mutex mutex; // guards the rest, and the slots as they say
  std::vector<MappingSlot*> free_slots;
  std::vector<fs::path> unreported; // of damaged mappings that are gone
};

Registry& registry() {
  static auto* instance = new Registry; // arrays may die after static objects
  return *instance;
}

MappingSlot* slot_of(std::uintptr_t address) {
  for (MappingSlot* slot = first_slot.load(std::memory_order_acquire);
       slot != nullptr;
       slot = slot->next) {
    if (slot->begin.load() <= address && address < slot->end.load()) {
      return slot;
    }
  }
  return nullptr;
}

/** Puts zeros where the rest of a mapping was. mmap is a bare system call. */
bool replace_with_zeros(std::uintptr_t address, std::uintptr_t end) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const std::uintptr_t begin = address / page * page;
  return ::mmap(
             reinterpret_cast<void*>(begin),
             end - begin,
             PROT_READ,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
             -1,
             0) != MAP_FAILED;
}

void pass_on(int signal, siginfo_t* info, void* context) {
  if ((previous_action.sa_flags & SA_SIGINFO) != 0) {
    previous_action.sa_sigaction(signal, info, context);
  } else if (
      previous_action.sa_handler != SIG_DFL &&
      previous_action.sa_handler != SIG_IGN) {
    previous_action.sa_handler(signal);
  } else {
    // A fault repeats on return, and ends the process; a sent signal does not.
    std::signal(signal, SIG_DFL);
    if (info->si_code <= 0) {
      std::raise(signal);
    }
  }
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const int saved = errno;
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  MappingSlot* const slot = info->si_code > 0 ? slot_of(address) : nullptr;
  if (slot == nullptr || !replace_with_zeros(address, slot->end.load())) {
    pass_on(signal, info, context);
  } else {
    slot->is_damaged.store(true);
    may_be_damaged.store(true);
  }
  errno = saved;
}

[[noreturn]] void fail_changed(const fs::path& path) {
  fail(
      ErrorKind::Io,
      "[MappedFile] {}: became shorter while it was in use, or its disk failed; "
      "nothing that was computed from it since is given out. Is somebody "
      "writing it?",
      path.string());
}

} // namespace

MappingSlot* register_mapping(
    std::span<const std::byte> pages,
    const fs::path& path) {
  Registry& all = registry();
  const std::lock_guard guard(all.mutex);
  MappingSlot* slot = nullptr;
  if (all.free_slots.empty()) {
    slot = new MappingSlot;
    slot->next = first_slot.load();
    first_slot.store(slot, std::memory_order_release);
  } else {
    slot = all.free_slots.back();
    all.free_slots.pop_back();
  }
  slot->path = path;
  slot->is_damaged = false;
  slot->is_reported = false;
  const auto begin = reinterpret_cast<std::uintptr_t>(pages.data());
  slot->begin = begin; // no address lies before the end, which comes last
  slot->end = begin + pages.size();
  return slot;
}

void unregister_mapping(MappingSlot* slot) {
  Registry& all = registry();
  const std::lock_guard guard(all.mutex);
  slot->end = 0; // first: no address lies in the slot from here on
  slot->begin = 0;
  if (slot->is_damaged && !slot->is_reported) {
    all.unreported.push_back(std::move(slot->path));
  }
  all.free_slots.push_back(slot);
}

void drop_mapped_pages() {
  const std::lock_guard guard(
      registry().mutex); // nothing is unmapped meanwhile
  for (MappingSlot* slot = first_slot; slot != nullptr; slot = slot->next) {
    const std::uintptr_t begin = slot->begin;
    if (begin != 0) {
      // Advice: a kernel that refuses it changes no result.
      (void)::madvise(
          reinterpret_cast<void*>(begin), slot->end - begin, MADV_DONTNEED);
    }
  }
}

bool is_mapped(const void* bytes) {
  const std::lock_guard guard(registry().mutex);
  return slot_of(reinterpret_cast<std::uintptr_t>(bytes)) != nullptr;
}

void fail_if_mapped(std::span<const std::byte> bytes) {
  const std::lock_guard guard(registry().mutex);
  const auto begin = reinterpret_cast<std::uintptr_t>(bytes.data());
  if (const MappingSlot* slot = slot_of(begin)) {
    fail_changed(slot->path);
  }
}

void guard_mappings() {
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  struct sigaction before {};
  ::sigaction(SIGBUS, nullptr, &before);
  if ((before.sa_flags & SA_SIGINFO) != 0 &&
      before.sa_sigaction == on_bus_error) {
    return; // a second call must not hand on to itself
  }
  previous_action = before;
  ::sigaction(SIGBUS, &action, nullptr);
}

void check_mappings() {
  if (!may_be_damaged.load(std::memory_order_relaxed)) {
    return;
  }
  Registry& all = registry();
  const std::lock_guard guard(all.mutex);
  may_be_damaged = false; // set again below, or by a fault from here on
  const MappingSlot* damaged = nullptr;
  for (MappingSlot* slot = first_slot; slot != nullptr; slot = slot->next) {
    if (slot->begin != 0 && slot->is_damaged) {
      damaged = damaged == nullptr ? slot : damaged;
      slot->is_reported = true;
    }
  }
  if (damaged != nullptr) {
    may_be_damaged = true;
    fail_changed(damaged->path);
  }
  if (!all.unreported.empty()) {
    const fs::path path = all.unreported.front();
    all.unreported.clear();
    fail_changed(path);
  }
}

} // namespace optiq
