#include "optiq/kernels/cpu/probe.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/probe.cpp"
#include <hwy/foreach_target.h>
// foreach_target.h comes first.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

const char* RunningTarget() {
  return hwy::TargetName(HWY_TARGET);
}

// As far ahead as the fastest of the products asks: one stream alone reads at
// .55 to .9 of what a core gets.
constexpr std::size_t kFetchBytes = 4096;

std::uint64_t SumWords(const std::uint64_t* words, std::size_t n) {
  const hn::ScalableTag<std::uint64_t> d;
  const std::size_t lanes = hn::Lanes(d);
  auto a = hn::Zero(d);
  auto b = a;
  auto c = a;
  auto e = a;
  std::size_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    for (std::size_t at = 0; at < 4 * lanes * sizeof(*words); at += 64) {
      hwy::Prefetch(
          reinterpret_cast<const std::byte*>(words + i) + kFetchBytes + at);
    }
    a = hn::Add(a, hn::LoadU(d, words + i));
    b = hn::Add(b, hn::LoadU(d, words + i + lanes));
    c = hn::Add(c, hn::LoadU(d, words + i + 2 * lanes));
    e = hn::Add(e, hn::LoadU(d, words + i + 3 * lanes));
  }
  std::uint64_t sum = hn::ReduceSum(d, hn::Add(hn::Add(a, b), hn::Add(c, e)));
  for (; i < n; ++i) {
    sum += words[i];
  }
  return sum;
}

using I32 = hn::ScalableTag<std::int32_t>;
constexpr int kChains = 16;

std::int32_t SpinDots(std::size_t steps) {
  const I32 di;
  const hn::Repartition<std::uint8_t, I32> du8;
  const hn::Repartition<std::int8_t, I32> di8;
  const auto codes = hn::Iota(du8, 1);
  hn::Vec<I32> acc[kChains];
  HWY_UNROLL(16)
  for (int i = 0; i < kChains; ++i) {
    acc[i] = hn::Set(di, i);
  }
  // The result feeds back, so that no dot is the same as another.
  auto x = hn::BitCast(di8, hn::Set(di, 0x01fe0302));
  for (std::size_t s = 0; s < steps; ++s) {
    HWY_UNROLL(16)
    for (int i = 0; i < kChains; ++i) {
      acc[i] = hn::SumOfMulQuadAccumulate(di, codes, x, acc[i]);
    }
    x = hn::Xor(x, hn::BitCast(di8, codes));
  }
  auto all = acc[0];
  for (int i = 1; i < kChains; ++i) {
    all = hn::Add(all, acc[i]);
  }
  return hn::ReduceSum(di, all);
}

std::size_t DotsPerStep() {
  return kChains * hn::Lanes(I32()) * 4;
}

} // namespace
} // namespace HWY_NAMESPACE
} // namespace optiq::kernels::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels::cpu {

HWY_EXPORT(RunningTarget);
HWY_EXPORT(SumWords);
HWY_EXPORT(SpinDots);
HWY_EXPORT(DotsPerStep);

const char* running_target() {
  return HWY_DYNAMIC_DISPATCH(RunningTarget)();
}

std::uint64_t sum_words(const std::uint64_t* words, std::size_t n) {
  return HWY_DYNAMIC_DISPATCH(SumWords)(words, n);
}

std::int32_t spin_dots(std::size_t steps) {
  return HWY_DYNAMIC_DISPATCH(SpinDots)(steps);
}

std::size_t dots_per_step() {
  return HWY_DYNAMIC_DISPATCH(DotsPerStep)();
}

} // namespace optiq::kernels::cpu
#endif
