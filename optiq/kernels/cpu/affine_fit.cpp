#include "optiq/kernels/cpu/affine_fit.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include <hwy/aligned_allocator.h>

#include "optiq/kernels/cpu/float_matmul.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/affine_fit.cpp"
#include <hwy/foreach_target.h>
// foreach_target.h comes first.
#include <hwy/highway.h>

// Lanes are rows: a group is [group][kFitRows], every row searches for itself.

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::CappedTag<float, 16>;
using V = hn::Vec<F>;
constexpr std::size_t kN = hn::MaxLanes(F());
static_assert(kFitRows % kN == 0);

constexpr int kMaxGroup = 128;
// Ranges from whole to a little more than a third: at 2 bits the best one of a
// bell-shaped group is about half of its extremes, at 8 bits nearly all.
constexpr int kRanges = 18;
constexpr float kRangeStep = 0.035f;
constexpr int kRefinements = 3;

struct Affine {
  V scale;
  V bias;
};

/** As the file keeps it. */
HWY_INLINE V Stored(FloatType type, V x) {
  const F df;
  switch (type) {
    case FloatType::BFloat16: {
      const hn::Rebind<hwy::bfloat16_t, F> half;
      return hn::PromoteTo(df, hn::DemoteTo(half, x));
    }
    case FloatType::Float16: {
      const hn::Rebind<hwy::float16_t, F> half;
      return hn::PromoteTo(df, hn::DemoteTo(half, x));
    }
    case FloatType::Float32:
      return x;
  }
  return x;
}

/** One group of kN rows, and how its codes count. */
struct Group {
  const float* values; // column k at k * kFitRows
  const float* importance; // [n]
  int n;
  float top; // largest code
  FloatType type;

  HWY_INLINE V value(int k) const {
    return hn::Load(F(), values + k * kFitRows);
  }
};

HWY_INLINE V CodeOf(V value, const Affine& fit, V inverse, float top) {
  const F df;
  const V code = hn::Round(hn::Mul(hn::Sub(value, fit.bias), inverse));
  return hn::Min(hn::Max(code, hn::Zero(df)), hn::Set(df, top));
}

HWY_INLINE V InverseOf(V scale) {
  const F df;
  const auto is_zero = hn::Eq(scale, hn::Zero(df));
  return hn::IfThenElse(
      is_zero, hn::Zero(df), hn::Div(hn::Set(df, 1.f), scale));
}

HWY_INLINE V ErrorOf(const Group& group, const Affine& fit) {
  const V inverse = InverseOf(fit.scale);
  V sum = hn::Zero(F());
  for (int k = 0; k < group.n; ++k) {
    const V value = group.value(k);
    const V code = CodeOf(value, fit, inverse, group.top);
    const V error = hn::Sub(value, hn::MulAdd(code, fit.scale, fit.bias));
    sum = hn::MulAdd(
        hn::Mul(error, error), hn::Set(F(), group.importance[k]), sum);
  }
  return sum;
}

/** Scale and bias of least squares for the codes that `fit` gives; `fit` where
 * the codes are all the same. */
HWY_INLINE Affine LeastSquares(const Group& group, const Affine& fit) {
  const F df;
  const V inverse = InverseOf(fit.scale);
  V weight = hn::Zero(df);
  V codes = hn::Zero(df);
  V squares = hn::Zero(df);
  V values = hn::Zero(df);
  V products = hn::Zero(df);
  for (int k = 0; k < group.n; ++k) {
    const V value = group.value(k);
    const V w = hn::Set(df, group.importance[k]);
    const V code = CodeOf(value, fit, inverse, group.top);
    const V weighted = hn::Mul(w, code);
    weight = hn::Add(weight, w);
    codes = hn::Add(codes, weighted);
    squares = hn::MulAdd(weighted, code, squares);
    values = hn::MulAdd(w, value, values);
    products = hn::MulAdd(weighted, value, products);
  }
  const V spread = hn::NegMulAdd(codes, codes, hn::Mul(weight, squares));
  // Of sums that round: below this the codes are as good as equal.
  const auto has_spread =
      hn::Gt(spread, hn::Mul(hn::Set(df, 1e-5f), hn::Mul(weight, squares)));
  // Stored first: the bias makes up for what the scale rounds.
  const V scale = Stored(
      group.type,
      hn::Div(hn::NegMulAdd(codes, values, hn::Mul(weight, products)), spread));
  const V bias = hn::Div(hn::NegMulAdd(scale, codes, values), weight);
  return {
      hn::IfThenElse(has_spread, scale, fit.scale),
      hn::IfThenElse(has_spread, Stored(group.type, bias), fit.bias)};
}

/** MLX's scale and bias (affine_group-inl.h). */
HWY_INLINE Affine NearestFit(V lo, V hi, float top) {
  const F df;
  const auto low_edge = hn::Gt(hn::Abs(lo), hn::Abs(hi));
  const V step =
      hn::Max(hn::Div(hn::Sub(hi, lo), hn::Set(df, top)), hn::Set(df, 1e-7f));
  const V scale = hn::IfThenElse(low_edge, step, hn::Neg(step));
  const V edge = hn::IfThenElse(low_edge, lo, hi);
  const V q0 = hn::Round(hn::Div(edge, scale));
  const auto is_zero = hn::Eq(q0, hn::Zero(df));
  return {
      hn::IfThenElse(is_zero, scale, hn::Div(edge, q0)),
      hn::IfThenElse(is_zero, hn::Zero(df), edge)};
}

/** The best fit so far. */
struct Search {
  Affine best;
  V error;

  HWY_INLINE void Offer(const Group& group, const Affine& fit) {
    const V other = ErrorOf(group, fit);
    const auto is_better = hn::Lt(other, error);
    best.scale = hn::IfThenElse(is_better, fit.scale, best.scale);
    best.bias = hn::IfThenElse(is_better, fit.bias, best.bias);
    error = hn::Min(error, other);
  }
};

HWY_INLINE Affine FitGroup(const Group& group) {
  const F df;
  V lo = group.value(0);
  V hi = lo;
  for (int k = 1; k < group.n; ++k) {
    lo = hn::Min(lo, group.value(k));
    hi = hn::Max(hi, group.value(k));
  }
  Affine nearest = NearestFit(lo, hi, group.top);
  nearest.scale = Stored(group.type, nearest.scale);
  nearest.bias = Stored(group.type, nearest.bias);
  Search search{nearest, ErrorOf(group, nearest)};
  for (int i = 0; i < kRanges; ++i) {
    const V share = hn::Set(df, 1.f - kRangeStep * static_cast<float>(i));
    const V low = hn::Mul(lo, share);
    const V range = hn::Sub(hn::Mul(hi, share), low);
    search.Offer(
        group,
        LeastSquares(group, {hn::Div(range, hn::Set(df, group.top)), low}));
  }
  for (int i = 0; i < kRefinements; ++i) {
    search.Offer(group, LeastSquares(group, search.best));
  }
  return search.best;
}

HWY_INLINE float ToFloat(float x) {
  return x;
}
HWY_INLINE float ToFloat(hwy::bfloat16_t x) {
  return hwy::F32FromBF16(x);
}
HWY_INLINE float ToFloat(hwy::float16_t x) {
  return hwy::F32FromF16(x);
}
HWY_INLINE void Store(float x, float* to) {
  *to = x;
}
HWY_INLINE void Store(float x, hwy::bfloat16_t* to) {
  *to = hwy::BF16FromF32(x);
}
HWY_INLINE void Store(float x, hwy::float16_t* to) {
  *to = hwy::F16FromF32(x);
}

/** A run of rows that go through the columns together. */
template <class T>
class Block {
 public:
  Block(const FitArgs& args, std::size_t first, std::size_t n)
      : args_(args), first_(first), n_(n) {
    if (args.factor != nullptr) {
      errors_ = hwy::AllocateAligned<float>(args.columns * kFitRows);
    }
  }

  void Run() {
    for (std::size_t at = 0; at < args_.columns; at += args_.group) {
      Load(at);
      for (std::size_t lane = 0; lane < n_; lane += kN) {
        Code(at, lane);
      }
      Write(at);
    }
  }

 private:
  void Load(std::size_t at) {
    const T* values = static_cast<const T*>(args_.values);
    for (std::size_t r = 0; r < kFitRows; ++r) {
      for (int k = 0; k < args_.group; ++k) {
        // Rows behind the last are zeros: their lanes count for nothing.
        weight_[k * kFitRows + r] = r < n_
            ? ToFloat(values[(first_ + r) * args_.columns + at + k])
            : 0.f;
      }
    }
    const std::size_t n = args_.group * kFitRows;
    std::copy_n(weight_, n, target_);
    if (args_.factor != nullptr && at > 0) {
      multiply_floats(
          {.a = {args_.factor + at, 1, args_.columns},
           .b = {.data = errors_.get(), .stride = kFitRows},
           .c = target_,
           .c_stride = kFitRows,
           .rows = static_cast<std::size_t>(args_.group),
           .cols = kFitRows,
           .inner = at,
           .accumulate = true});
    }
  }

  /** Codes of one vector of rows. */
  void Code(std::size_t at, std::size_t lane) {
    const F df;
    const hn::RebindToSigned<F> di;
    const hn::Rebind<std::uint8_t, F> d8;
    const float top = static_cast<float>((1 << args_.bits) - 1);
    const Affine fit = FitGroup(
        {target_ + lane, args_.importance + at, args_.group, top, args_.type});
    const V inverse = InverseOf(fit.scale);
    for (int k = 0; k < args_.group; ++k) {
      const std::size_t cell = k * kFitRows + lane;
      const V code = CodeOf(hn::Load(df, target_ + cell), fit, inverse, top);
      hn::StoreU(hn::DemoteTo(d8, hn::ConvertTo(di, code)), d8, codes_ + cell);
      if (args_.factor != nullptr) {
        const V error = hn::Sub(
            hn::Load(df, weight_ + cell),
            hn::MulAdd(code, fit.scale, fit.bias));
        hn::Store(error, df, errors_.get() + at * kFitRows + cell);
        FeedBack(at, k, lane, error);
      }
    }
    hn::Store(fit.scale, df, scale_ + lane);
    hn::Store(fit.bias, df, bias_ + lane);
  }

  /** What column k lost, to those behind it in the group. */
  HWY_INLINE void FeedBack(std::size_t at, int k, std::size_t lane, V error) {
    const F df;
    const float* factor = args_.factor + (at + k) * args_.columns + at;
    for (int j = k + 1; j < args_.group; ++j) {
      float* target = target_ + j * kFitRows + lane;
      hn::Store(
          hn::MulAdd(hn::Set(df, factor[j]), error, hn::Load(df, target)),
          df,
          target);
    }
  }

  void Write(std::size_t at) {
    const std::size_t groups = args_.columns / args_.group;
    const std::size_t row_bytes = args_.columns * args_.bits / 8;
    for (std::size_t r = 0; r < n_; ++r) {
      auto* out = static_cast<std::uint8_t*>(args_.codes) +
          (first_ + r) * row_bytes + at * args_.bits / 8;
      const std::size_t group = args_.group;
      for (std::size_t k = 0; k < group; k += 8) {
        std::uint64_t word = 0;
        for (int i = 0; i < 8; ++i) {
          word |= std::uint64_t{codes_[(k + i) * kFitRows + r]}
              << (args_.bits * i);
        }
        std::memcpy(out + k / 8 * args_.bits, &word, args_.bits);
      }
      const std::size_t cell = (first_ + r) * groups + at / args_.group;
      Store(scale_[r], static_cast<T*>(args_.scales) + cell);
      Store(bias_[r], static_cast<T*>(args_.biases) + cell);
    }
  }

  const FitArgs& args_;
  std::size_t first_;
  std::size_t n_;
  hwy::AlignedFreeUniquePtr<float[]> errors_; // [columns][kFitRows]
  HWY_ALIGN float weight_[kMaxGroup * kFitRows];
  HWY_ALIGN float target_[kMaxGroup * kFitRows]; // what is coded
  HWY_ALIGN std::uint8_t codes_[kMaxGroup * kFitRows];
  HWY_ALIGN float scale_[kFitRows];
  HWY_ALIGN float bias_[kFitRows];
};

template <class T>
void FitTyped(const FitArgs& args, std::size_t first, std::size_t last) {
  for (std::size_t row = first; row < last; row += kFitRows) {
    Block<T>(args, row, std::min(kFitRows, last - row)).Run();
  }
}

void FitRows(const FitArgs& args, std::size_t first, std::size_t last) {
  switch (args.type) {
    case FloatType::BFloat16:
      return FitTyped<hwy::bfloat16_t>(args, first, last);
    case FloatType::Float16:
      return FitTyped<hwy::float16_t>(args, first, last);
    case FloatType::Float32:
      return FitTyped<float>(args, first, last);
  }
}

} // namespace
} // namespace optiq::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels::cpu {

HWY_EXPORT(FitRows);

void fit_rows(const FitArgs& args, std::size_t first, std::size_t last) {
  HWY_DYNAMIC_DISPATCH(FitRows)(args, first, last);
}

} // namespace optiq::kernels::cpu
#endif
