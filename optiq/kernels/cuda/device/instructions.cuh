// Instructions that CUDA's C++ has no words for (PTX ISA 8 and 9).
#pragma once

#include <cstdint>

namespace optiq::kernels::cuda {

/** c += A B on tensor cores, 16 x 16 times 16 x 8, sums in float32. Lane 4 g +
 * t holds of A rows g (a0, a2) and g + 8 (a1, a3), of B column g, at k = 2 t, 2
 * t + 1 (a0, a1, b0) and 8 behind (a2, a3, b1); of c rows g and g + 8, columns
 * 2 t and 2 t + 1. */
__device__ __forceinline__ void mma_bf16(
    float (&c)[4],
    std::uint32_t a0,
    std::uint32_t a1,
    std::uint32_t a2,
    std::uint32_t a3,
    std::uint32_t b0,
    std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/** The same of float16. */
__device__ __forceinline__ void mma_f16(
    float (&c)[4],
    std::uint32_t a0,
    std::uint32_t a1,
    std::uint32_t a2,
    std::uint32_t a3,
    std::uint32_t b0,
    std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/** Four 8 x 8 matrices of 16 bits in shared memory, of which lane l says where
 * row l % 8 of matrix l / 8 begins. Lane 4 g + t gets of each row g, columns 2
 * t and 2 t + 1. */
__device__ __forceinline__ void load_matrices(
    std::uint32_t (&to)[4],
    const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
}
/** The same, but column g, rows 2 t and 2 t + 1. */
__device__ __forceinline__ void load_transposed(
    std::uint32_t (&to)[4],
    const void* row) {
  asm volatile(
      "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
      : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
      : "r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(row)))
      : "memory");
}
/** From row g, columns 2 t and 2 t + 1 of an 8 x 8 matrix of 16 bits to column
 * g, rows 2 t and 2 t + 1. */
__device__ __forceinline__ std::uint32_t transpose(std::uint32_t x) {
  std::uint32_t y;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

/** (x & mask) | others in one instruction. */
__device__ __forceinline__ std::uint32_t
and_or(std::uint32_t x, std::uint32_t mask, std::uint32_t others) {
  std::uint32_t y;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;"
      : "=r"(y)
      : "r"(x), "r"(mask), "r"(others));
  return y;
}

/** What is read once and written by no kernel that may still run: it need not
 * push anything out of the first cache. Volatile, so that it stays where it is
 * written: ahead of await_previous(). */
__device__ __forceinline__ uint4 stream4(const void* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

__device__ __forceinline__ uint2 stream2(const void* p) {
  uint2 v;
  asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2];"
               : "=r"(v.x), "=r"(v.y)
               : "l"(p));
  return v;
}

__device__ __forceinline__ std::uint32_t stream1(const void* p) {
  std::uint32_t v;
  asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(v) : "l"(p));
  return v;
}

/** 16 bytes on their way into shared memory; zeros unless wanted. */
__device__ __forceinline__ void
copy16(const void* to, const void* from, bool is_wanted = true) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(
                   static_cast<std::uint32_t>(__cvta_generic_to_shared(to))),
               "l"(from),
               "r"(is_wanted ? 16 : 0)
               : "memory");
}
/** What was copied since the last call is a group of copies. */
__device__ __forceinline__ void end_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
/** Waits until all of this thread's groups but the last kPending are there. */
template <int kPending>
__device__ __forceinline__ void await_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

/** Adds to a counter, and returns what it was: who finds it added to sees what
 * was written before by this thread, and by those that it has met at a
 * barrier. */
__device__ __forceinline__ unsigned add_for_all(unsigned* to, unsigned n) {
  unsigned before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(to), "r"(n)
               : "memory");
  return before;
}

/** Lets the next kernel of the stream start beside this one, as far as it does
 * not read what this one writes. */
__device__ __forceinline__ void allow_next() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

/** Waits until the kernels before this one are done and what they wrote is
 * there. */
__device__ __forceinline__ void await_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/** What every kernel begins with that reads nothing before. */
__device__ __forceinline__ void begin_kernel() {
  allow_next();
  await_previous();
}

} // namespace optiq::kernels::cuda
