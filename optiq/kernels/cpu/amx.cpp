#include "optiq/kernels/cpu/amx.h"

#include <atomic>

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace optiq::kernels::cpu {
namespace {

/** Intel's Architecture Instruction Set Extensions, CPUID leaf 7. */
bool cpu_has_tiles() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  constexpr unsigned kTiles =
      1U << 22 | 1U << 24 | 1U << 25; // bf16, tile, int8
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 ||
      (edx & kTiles) != kTiles) {
    return false;
  }
  constexpr unsigned kBFloat16 = 1U << 5; // AVX-512's
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 &&
      (eax & kBFloat16) != 0;
}

/** The 8 KB of a thread's tiles are the system's to save: it wants to be asked
 * (Linux, Documentation/arch/x86/xstate.rst). */
bool ask_for_tiles() {
  constexpr long kRequestPermission = 0x1023; // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

std::atomic<bool>& wanted_tiles() {
  static std::atomic<bool> wanted{true};
  return wanted;
}

} // namespace

bool has_amx() {
  static const bool has = cpu_has_tiles() && ask_for_tiles();
  return has;
}

bool uses_amx() {
  return has_amx() && wanted_tiles().load(std::memory_order_relaxed);
}

void set_uses_amx(bool wanted) {
  wanted_tiles().store(wanted, std::memory_order_relaxed);
}

} // namespace optiq::kernels::cpu
