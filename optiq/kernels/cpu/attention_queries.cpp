#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "optiq/kernels/cpu/attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/attention_queries.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "optiq/kernels/cpu/attention_scratch_impl.h"
#include "optiq/kernels/cpu/rotation-inl.h"
#include "optiq/kernels/cpu/vector_math-inl.h"

// What is done to queries once before they meet a cache: scaled, rotated,
// rounded to int8 or bfloat16.
HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {
namespace {

/** Rounds n values to digits of one scale; returns {scale, sum of digits}. */
HWY_INLINE std::pair<float, float>
RoundUnit(const float* x, std::size_t n, std::int8_t* digits) {
  const F32 d;
  const hn::RebindToSigned<F32> di;
  const hn::Rebind<std::int8_t, hn::RebindToSigned<F32>> d8;
  VF32 largest = hn::Zero(d);
  VF32 check = hn::Zero(d);
  for (std::size_t i = 0; i < n; i += hn::Lanes(d)) {
    const VF32 v = hn::LoadU(d, x + i);
    largest = hn::Max(largest, hn::Abs(v));
    check = hn::MulAdd(v, hn::Zero(d), check);
  }
  const float most = hn::ReduceMax(d, largest);
  if (std::isnan(hn::ReduceSum(d, check))) {
    std::fill_n(digits, n, std::int8_t{0});
    return {std::numeric_limits<float>::quiet_NaN(), 0.0f};
  }
  if (!(most >= kTiniestWeight)) {
    std::fill_n(digits, n, std::int8_t{0});
    return {0.0f, 0.0f};
  }
  const VF32 inverse = hn::Set(d, 127.0f / most);
  auto sum = hn::Zero(di);
  for (std::size_t i = 0; i < n; i += hn::Lanes(d)) {
    const auto digit = hn::NearestInt(hn::Mul(hn::LoadU(d, x + i), inverse));
    sum = hn::Add(sum, digit);
    hn::StoreU(hn::DemoteTo(d8, digit), d8, digits + i);
  }
  return {most / 127.0f, static_cast<float>(hn::ReduceSum(di, sum))};
}

/** Digits and factors of one head. */
HWY_INLINE void MakeDigits(
    const AttentionShape& shape,
    const float* values,
    std::int8_t* digits,
    float* factors) {
  const KvSide& side = shape.layout.key;
  const float shrink = 1.0f / std::sqrt(static_cast<float>(side.head_dim));
  std::fill_n(digits + side.head_dim, side.dims - side.head_dim, 0);
  for (std::size_t u = 0; u < shape.units.size; ++u) {
    const KeyUnit& unit = shape.units.units[u];
    const std::size_t n = std::min(unit.channels, side.head_dim - unit.channel);
    const auto [scale, sum] =
        RoundUnit(values + unit.channel, n, digits + unit.channel);
    if (side.code == KvCode::Affine) {
      factors[2 * u] = scale;
      factors[2 * u + 1] = scale * sum;
    } else {
      factors[2 * u] = scale * side.table_of(unit.channel).step * shrink;
      factors[2 * u + 1] = 128.0f * sum;
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
      Rotate(side.rotation, false, from, rotated);
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
      MakeDigits(
          shape,
          values,
          to.digits + head * side.dims,
          to.factors + head * 2 * shape.units.size);
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
  return shape.layout.key.packed() && !shape.layout.exact;
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
