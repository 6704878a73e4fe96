// Queries and weights as int8 digits, before they meet codes; included once per
// SIMD target. Of kDigits = 1 a value is digit * scale; of more,
//
//   value = scale * sum_i digit_i / 256^i      each digit in [-128, 127]
//
// where the largest value that shares the scale has the first digit 127.
#if defined(OPTIQ_KERNELS_CPU_PACKED_DIGITS_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef OPTIQ_KERNELS_CPU_PACKED_DIGITS_INL_H_
#undef OPTIQ_KERNELS_CPU_PACKED_DIGITS_INL_H_
#else
#define OPTIQ_KERNELS_CPU_PACKED_DIGITS_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

#include "optiq/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {

using DigitI32 = hn::RebindToSigned<F32>;

/** The largest value in units of the last digit. */
template <int kDigits>
constexpr float kLargestDigits = 127.0f * (1 << 8 * (kDigits - 1));

/** Rounds x * inverse, at most kLargestDigits, and writes digit i at
 * to + i * stride; adds them to `sums`. */
template <int kDigits>
HWY_INLINE void StoreDigits(
    VF32 x,
    VF32 inverse,
    std::int8_t* to,
    std::size_t stride,
    hn::Vec<DigitI32> (&sums)[kDigits]) {
  const hn::Rebind<std::uint8_t, DigitI32> d8;
  const hn::RebindToUnsigned<DigitI32> du;
  const auto store = [&](int i, hn::Vec<DigitI32> digit) HWY_ATTR {
    sums[i] = hn::Add(sums[i], digit);
    hn::StoreU(
        hn::TruncateTo(d8, hn::BitCast(du, digit)),
        d8,
        reinterpret_cast<std::uint8_t*>(to) + i * stride);
  };
  auto left = hn::NearestInt(hn::Mul(x, inverse));
  for (int i = kDigits - 1; i > 0; --i) {
    const auto digit = hn::ShiftRight<24>(hn::ShiftLeft<24>(left));
    store(i, digit);
    left = hn::ShiftRight<8>(hn::Sub(left, digit));
  }
  store(0, left);
}

/** The integer sums of the digits' places for vector v as one float, in units
 * of the first digit: 2^-24 of it is lost. Sums stay below 2^22. */
template <int kDigits, std::size_t P>
HWY_INLINE VF32
JoinPlaces(const hn::Vec<DigitI32> (&sums)[kDigits][P], std::size_t v) {
  const F32 d;
  if constexpr (kDigits == 1) {
    return hn::ConvertTo(d, sums[0][v]);
  } else {
    static_assert(kDigits == 3);
    const auto upper = hn::Add(hn::ShiftLeft<8>(sums[0][v]), sums[1][v]);
    return hn::MulAdd(
        hn::ConvertTo(d, sums[2][v]),
        hn::Set(d, 0x1p-16f),
        hn::Mul(hn::ConvertTo(d, upper), hn::Set(d, 0x1p-8f)));
  }
}

} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
