#include "optiq/kernels/cpu/affine_quantize.h"

#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/affine_quantize.cpp"
#include <hwy/foreach_target.h>
// foreach_target.h comes first.
#include <hwy/highway.h>

#include "optiq/kernels/cpu/affine_group-inl.h"

// Codes form a little-endian bit stream.

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int kMaxGroup = 128;

HWY_INLINE void StoreRounded(float value, float* to) {
  *to = value;
}
HWY_INLINE void StoreRounded(float value, hwy::bfloat16_t* to) {
  *to = hwy::BF16FromF32(value);
}
HWY_INLINE void StoreRounded(float value, hwy::float16_t* to) {
  *to = hwy::F16FromF32(value);
}

/** 8 codes into `bits` bytes. */
HWY_INLINE void
PackEight(const std::uint8_t* codes, int bits, std::uint8_t* out) {
  std::uint64_t word = 0;
  for (int i = 0; i < 8; ++i) {
    word |= std::uint64_t{codes[i]} << (bits * i);
  }
  std::memcpy(out, &word, bits);
}

template <class T>
void QuantizeTyped(
    const QuantizeArgs& args,
    std::size_t first,
    std::size_t last) {
  const std::size_t code_bytes =
      static_cast<std::size_t>(args.group) * args.bits / 8;
  for (std::size_t g = first; g < last; ++g) {
    const T* values = static_cast<const T*>(args.values) + g * args.group;
    alignas(64) std::uint8_t codes[kMaxGroup];
    const affine::Affine fit =
        affine::QuantizeGroup(values, args.group, args.bits, codes);
    auto* out = static_cast<std::uint8_t*>(args.codes) + g * code_bytes;
    const std::size_t group = args.group;
    for (std::size_t i = 0; i < group; i += 8) {
      PackEight(codes + i, args.bits, out + i / 8 * args.bits);
    }
    StoreRounded(fit.scale, static_cast<T*>(args.scales) + g);
    StoreRounded(fit.bias, static_cast<T*>(args.biases) + g);
  }
}

void QuantizeGroups(
    const QuantizeArgs& args,
    std::size_t first,
    std::size_t last) {
  switch (args.type) {
    case FloatType::BFloat16:
      return QuantizeTyped<hwy::bfloat16_t>(args, first, last);
    case FloatType::Float16:
      return QuantizeTyped<hwy::float16_t>(args, first, last);
    case FloatType::Float32:
      return QuantizeTyped<float>(args, first, last);
  }
}

} // namespace
} // namespace HWY_NAMESPACE
} // namespace optiq::kernels::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels::cpu {

HWY_EXPORT(QuantizeGroups);

void quantize_groups(
    const QuantizeArgs& args,
    std::size_t first,
    std::size_t last) {
  HWY_DYNAMIC_DISPATCH(QuantizeGroups)(args, first, last);
}

} // namespace optiq::kernels::cpu
#endif
