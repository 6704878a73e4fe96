#include <algorithm>
#include <cmath>
#include <limits>

#include "optiq/kernels/cpu/attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/attention_queries.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "optiq/kernels/cpu/attention_scratch_impl.h"
#include "optiq/kernels/cpu/packed_digits-inl.h"
#include "optiq/kernels/cpu/rotation-inl.h"
#include "optiq/kernels/cpu/vector_math-inl.h"

// What is done to queries once before they meet a cache: scaled, rotated,
// rounded to digits or bfloat16.
HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {
namespace {

/** What the digits of a unit are multiplied by, and their sums. */
template <int kDigits>
struct RoundedUnit {
  float scale = 0.0f;
  std::int32_t sums[kDigits] = {};
};

/** Rounds n values to digits of one scale. */
template <int kDigits>
HWY_INLINE RoundedUnit<kDigits> RoundUnit(
    const float* x,
    std::size_t n,
    std::int8_t* digits,
    std::size_t stride) {
  const F32 d;
  VF32 largest = hn::Zero(d);
  VF32 check = hn::Zero(d);
  for (std::size_t i = 0; i < n; i += hn::Lanes(d)) {
    const VF32 v = hn::LoadU(d, x + i);
    largest = hn::Max(largest, hn::Abs(v));
    check = hn::MulAdd(v, hn::Zero(d), check);
  }
  const float most = hn::ReduceMax(d, largest);
  const bool is_number = !std::isnan(hn::ReduceSum(d, check));
  RoundedUnit<kDigits> unit;
  if (!is_number || !(most >= kTiniestWeight)) {
    for (int i = 0; i < kDigits; ++i) {
      std::fill_n(digits + i * stride, n, std::int8_t{0});
    }
    unit.scale = is_number ? 0.0f : std::numeric_limits<float>::quiet_NaN();
    return unit;
  }
  const VF32 inverse = hn::Set(d, kLargestDigits<kDigits> / most);
  hn::Vec<DigitI32> sums[kDigits];
  std::fill_n(sums, kDigits, hn::Zero(DigitI32()));
  for (std::size_t i = 0; i < n; i += hn::Lanes(d)) {
    StoreDigits<kDigits>(
        hn::LoadU(d, x + i), inverse, digits + i, stride, sums);
  }
  unit.scale = most / 127.0f;
  for (int i = 0; i < kDigits; ++i) {
    unit.sums[i] = hn::ReduceSum(DigitI32(), sums[i]);
  }
  return unit;
}

/** Digits [kDigits][dims] and factors of one head. */
template <int kDigits>
HWY_INLINE void MakeDigits(
    const AttentionShape& shape,
    const float* values,
    std::int8_t* digits,
    KeyFactors* factors) {
  const KvSide& side = shape.layout.key;
  const float shrink = 1.0f / std::sqrt(static_cast<float>(side.head_dim));
  for (int i = 0; i < kDigits; ++i) {
    std::fill_n(
        digits + i * side.dims + side.head_dim, side.dims - side.head_dim, 0);
  }
  for (std::size_t u = 0; u < shape.units.size; ++u) {
    const KeyUnit& unit = shape.units.units[u];
    const std::size_t n = std::min(unit.channels, side.head_dim - unit.channel);
    const RoundedUnit<kDigits> rounded = RoundUnit<kDigits>(
        values + unit.channel, n, digits + unit.channel, side.dims);
    KeyFactors& to = factors[u];
    if (side.code == KvCode::Affine) {
      double sum = 0.0; // of the values
      for (int i = kDigits - 1; i >= 0; --i) {
        sum = sum / 256 + rounded.sums[i];
      }
      to = {rounded.scale, rounded.scale * static_cast<float>(sum), {}};
      continue;
    }
    to = {rounded.scale * side.table_of(unit.channel).step * shrink, 0.0f, {}};
    std::int32_t sum = 0; // a place has the products of all digits before
    for (int i = 0; i < kDigits; ++i) {
      sum += rounded.sums[i];
      to.before[i] = -128 * sum;
    }
  }
}

/** x * scale as bfloat16. */
HWY_INLINE void
RoundQuery(const float* x, float scale, std::size_t n, std::uint16_t* to) {
  const F32 d;
  const hn::Rebind<hwy::bfloat16_t, F32> halves;
  const hn::Rebind<std::uint16_t, F32> d16;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t i = 0; i < n; i += lanes) {
    const std::size_t count = std::min(lanes, n - i);
    const VF32 v = hn::Mul(hn::LoadN(d, x + i, count), hn::Set(d, scale));
    const auto rounded = hn::BitCast(d16, hn::DemoteTo(halves, v));
    hn::StoreN(rounded, d16, to + i, count);
  }
}

void PrepareQueries(
    const float* q,
    const AttentionShape& shape,
    std::size_t first,
    std::size_t last,
    const Queries& to) {
  const KvSide& side = shape.layout.key;
  const std::size_t dim = side.head_dim;
  HWY_ALIGN float rotated[kMaxHeadDim];
  for (std::size_t head = first; head < last; ++head) {
    const float* from = q + head * dim;
    if (side.code == KvCode::Turbo) {
      Rotate(side.rotation, dim, false, from, rotated);
      from = rotated;
    }
    if (to.halves != nullptr) {
      RoundQuery(from, shape.scale, dim, to.halves + head * dim);
      continue;
    }
    float* values = to.values + head * dim;
    for (std::size_t i = 0; i < dim; ++i) {
      values[i] = from[i] * shape.scale;
    }
    if (to.digits != nullptr) {
      std::int8_t* digits =
          to.digits + head * shape.layout.digits() * side.dims;
      KeyFactors* factors = to.factors + head * shape.units.size;
      if (shape.layout.exact) {
        MakeDigits<kExactDigits>(shape, values, digits, factors);
      } else {
        MakeDigits<1>(shape, values, digits, factors);
      }
    }
  }
}

} // namespace
} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels::cpu {

HWY_EXPORT(PrepareQueries);

KeyUnits key_units(const KvSide& key) {
  constexpr std::size_t kMost = 64; // channels that share a scale of digits
  KeyUnits units;
  if (!key.packed()) {
    return units;
  }
  for (std::size_t at = 0; at < key.dims;) {
    std::size_t end = at < key.wide ? key.wide : key.dims;
    std::size_t group = 0;
    if (key.code == KvCode::Affine) {
      group = at / key.group;
      end = std::min(end, (group + 1) * key.group);
    }
    end = std::min(end, at + kMost);
    units.units[units.size++] = {at, end - at, group};
    at = end;
  }
  return units;
}

bool needs_digits(const AttentionShape& shape) {
  return shape.layout.key.packed();
}

bool needs_halves(const AttentionShape& shape) {
  return shape.layout.dots(shape.layout.key);
}

void prepare_queries(
    const float* q,
    const AttentionShape& shape,
    std::size_t first,
    std::size_t last,
    const Queries& to) {
  HWY_DYNAMIC_DISPATCH(PrepareQueries)(q, shape, first, last, to);
}

} // namespace optiq::kernels::cpu
#endif
