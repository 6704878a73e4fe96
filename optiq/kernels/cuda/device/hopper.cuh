// Instructions of compute capability 9.0 and newer, copies of the bulk engine
// and barriers in shared memory, and of 9.0 alone, products of warp groups (PTX
// ISA 8, sm_90a).
#pragma once

#include <cstdint>

#include "optiq/kernels/cuda/device/common.cuh"

namespace optiq::kernels::cuda {

__device__ __forceinline__ std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

/** A barrier of `arrivals`, and of the bytes that one of them announces. */
__device__ __forceinline__ void make_barrier(
    std::uint64_t& barrier,
    int arrivals) {
  asm volatile(
      "mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(&barrier)),
      "r"(arrivals)
      : "memory");
}
/** What barriers were made is seen by copies, too. */
__device__ __forceinline__ void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void arrive(std::uint64_t& barrier) {
  asm volatile(
      "mbarrier.arrive.shared.b64 _, [%0];" ::"r"(shared_address(&barrier))
      : "memory");
}
/** Arrives as soon as `seen` is known, which comes of all that was read: a read
 * can still stand in its queue when a thread arrives, and the bulk engine then
 * writes before it (seen behind many reads of global memory). So that it waits,
 * which of two instructions arrives depends on `seen`. */
__device__ __forceinline__ void arrive_behind(
    std::uint64_t& barrier,
    std::uint32_t seen) {
  asm volatile(
      "{\n"
      ".reg .pred is_zero;\n"
      "setp.eq.u32 is_zero, %1, 0;\n"
      "@is_zero mbarrier.arrive.shared.b64 _, [%0];\n"
      "@!is_zero mbarrier.arrive.shared.b64 _, [%0];\n"
      "}" ::"r"(shared_address(&barrier)),
      "r"(seen));
}
/** One arrival for a warp, behind what all of its lanes read. */
__device__ __forceinline__ void arrive_behind_warp(
    std::uint64_t& barrier,
    std::uint32_t seen) {
  const std::uint32_t of_all = __reduce_xor_sync(kAllLanes, seen);
  if (threadIdx.x % 32 == 0) {
    arrive_behind(barrier, of_all);
  }
}
__device__ __forceinline__ void arrive_expecting(
    std::uint64_t& barrier,
    int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(
                   shared_address(&barrier)),
               "r"(bytes)
               : "memory");
}
/** Waits for the end of the phase of this parity. */
__device__ __forceinline__ void await_barrier(
    std::uint64_t& barrier,
    int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}" ::"r"(shared_address(&barrier)),
      "r"(parity)
      : "memory");
}

/** A warp group gives registers up, or takes what others gave up: it has kCount
 * from here on. */
template <int kCount>
__device__ __forceinline__ void keep_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}
template <int kCount>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}

/** The barriers of a ring's stages, which one fills and `readers` empty. By one
 * thread; the others wait for it. */
template <class Ring>
__device__ __forceinline__ void make_ring(Ring& ring, int readers) {
  for (int i = 0; i < Ring::kStages; ++i) {
    make_barrier(ring.full[i], 1);
    make_barrier(ring.empty[i], readers);
  }
  publish_barriers();
}

/** Copies bytes, a multiple of 16, into shared memory; the barrier counts. */
__device__ __forceinline__ void
copy_bulk(void* to, const void* from, int bytes, std::uint64_t& barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1], %2, [%3];" ::"r"(shared_address(to)),
      "l"(from),
      "r"(bytes),
      "r"(shared_address(&barrier))
      : "memory");
}

/** 64 columns of 16 bits of rows of 128 bytes, swizzled by these. */
__device__ __forceinline__ std::uint64_t operand_of(const void* tile) {
  constexpr std::uint64_t kSwizzled = std::uint64_t{1} << 62;
  constexpr std::uint64_t kEightRows = std::uint64_t{1024 >> 4} << 32;
  constexpr std::uint64_t kUnused = std::uint64_t{1} << 16;
  return kSwizzled | kEightRows | kUnused |
      (shared_address(tile) & 0x3ffff) >> 4;
}

/** Registers written before are there for what follows. */
__device__ __forceinline__ void begin_products() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void end_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/** Waits until all products but those of the last kPending begins are done. */
template <int kPending>
__device__ __forceinline__ void await_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

/** c (+)= A B of a warp group: 64 x 16 times 16 x 128. A warp has 16 rows of A,
 * as mma_f16 has them; of c, c[4 j + i] is mma_f16's c[i] of columns from 8 j
 * on. */
__device__ __forceinline__ void multiply_group(
    float (&c)[64],
    const std::uint32_t (&a)[4],
    std::uint64_t b,
    bool adds) {
  asm volatile(
      "{\n"
      ".reg .pred adds;\n"
      "setp.ne.b32 adds, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, adds, 1, 1, 0;\n"
      "}"
      : "+f"(c[0]),
        "+f"(c[1]),
        "+f"(c[2]),
        "+f"(c[3]),
        "+f"(c[4]),
        "+f"(c[5]),
        "+f"(c[6]),
        "+f"(c[7]),
        "+f"(c[8]),
        "+f"(c[9]),
        "+f"(c[10]),
        "+f"(c[11]),
        "+f"(c[12]),
        "+f"(c[13]),
        "+f"(c[14]),
        "+f"(c[15]),
        "+f"(c[16]),
        "+f"(c[17]),
        "+f"(c[18]),
        "+f"(c[19]),
        "+f"(c[20]),
        "+f"(c[21]),
        "+f"(c[22]),
        "+f"(c[23]),
        "+f"(c[24]),
        "+f"(c[25]),
        "+f"(c[26]),
        "+f"(c[27]),
        "+f"(c[28]),
        "+f"(c[29]),
        "+f"(c[30]),
        "+f"(c[31]),
        "+f"(c[32]),
        "+f"(c[33]),
        "+f"(c[34]),
        "+f"(c[35]),
        "+f"(c[36]),
        "+f"(c[37]),
        "+f"(c[38]),
        "+f"(c[39]),
        "+f"(c[40]),
        "+f"(c[41]),
        "+f"(c[42]),
        "+f"(c[43]),
        "+f"(c[44]),
        "+f"(c[45]),
        "+f"(c[46]),
        "+f"(c[47]),
        "+f"(c[48]),
        "+f"(c[49]),
        "+f"(c[50]),
        "+f"(c[51]),
        "+f"(c[52]),
        "+f"(c[53]),
        "+f"(c[54]),
        "+f"(c[55]),
        "+f"(c[56]),
        "+f"(c[57]),
        "+f"(c[58]),
        "+f"(c[59]),
        "+f"(c[60]),
        "+f"(c[61]),
        "+f"(c[62]),
        "+f"(c[63])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int{adds}));
}

} // namespace optiq::kernels::cuda
