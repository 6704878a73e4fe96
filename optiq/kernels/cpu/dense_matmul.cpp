#include "optiq/kernels/cpu/dense_matmul.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/dense_matmul.cpp"
#include <hwy/foreach_target.h>
// foreach_target.h comes first.
#include <hwy/highway.h>

// y[m][n] = sum over blocks of 1024 inputs, in order, of
//             reduce(acc0 + acc1)
// where acc0 takes the block's even vectors of lanes and acc1 the odd ones.
// Every kernel below computes an element this way, so it does not depend on
// how many rows or weights share a tile.

HWY_BEFORE_NAMESPACE();
namespace optiq::kernels::cpu {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::ScalableTag<float>;
constexpr int kN = static_cast<int>(hn::MaxLanes(F()));
constexpr int kBlock = 1024;

HWY_INLINE hn::Vec<F> LoadFloats(const float* p) {
  return hn::LoadU(F(), p);
}
HWY_INLINE hn::Vec<F> LoadFloats(const float* p, std::size_t n) {
  return hn::LoadN(F(), p, n);
}
template <class Half>
HWY_INLINE hn::Vec<F> LoadFloats(const Half* p) {
  return hn::PromoteTo(F(), hn::LoadU(hn::Rebind<Half, F>(), p));
}
template <class Half>
HWY_INLINE hn::Vec<F> LoadFloats(const Half* p, std::size_t n) {
  return hn::PromoteTo(F(), hn::LoadN(hn::Rebind<Half, F>(), p, n));
}

/** Where a tile of rows x weights lies. */
template <class T>
struct Tile {
  const float* x;
  std::size_t x_stride;
  const T* w;
  std::size_t w_stride;
  int inputs; // up to kBlock
  float* y;
  std::size_t y_stride;
  bool accumulate; // onto y: not the first block of inputs
};

template <int kRows, int kCols>
using Sums = hn::Vec<F>[kRows][kCols];

template <int kRows, int kCols, class T>
HWY_INLINE void Step(const Tile<T>& tile, int at, Sums<kRows, kCols>& acc) {
  hn::Vec<F> w[kCols];
  HWY_UNROLL(4)
  for (int c = 0; c < kCols; ++c) {
    w[c] = LoadFloats(tile.w + c * tile.w_stride + at);
  }
  HWY_UNROLL(4)
  for (int m = 0; m < kRows; ++m) {
    const auto x = hn::LoadU(F(), tile.x + m * tile.x_stride + at);
    HWY_UNROLL(4)
    for (int c = 0; c < kCols; ++c) {
      acc[m][c] = hn::MulAdd(x, w[c], acc[m][c]);
    }
  }
}

template <int kRows, int kCols, class T>
HWY_INLINE void LastStep(const Tile<T>& tile, int at, Sums<kRows, kCols>& acc) {
  const std::size_t n = tile.inputs - at;
  for (int m = 0; m < kRows; ++m) {
    const auto x = LoadFloats(tile.x + m * tile.x_stride + at, n);
    for (int c = 0; c < kCols; ++c) {
      const auto w = LoadFloats(tile.w + c * tile.w_stride + at, n);
      acc[m][c] = hn::MulAdd(x, w, acc[m][c]);
    }
  }
}

template <int kRows, int kCols, class T>
HWY_NOINLINE void MultiplyTile(const Tile<T>& tile) {
  Sums<kRows, kCols> even;
  Sums<kRows, kCols> odd;
  HWY_UNROLL(4)
  for (int m = 0; m < kRows; ++m) {
    HWY_UNROLL(4)
    for (int c = 0; c < kCols; ++c) {
      even[m][c] = odd[m][c] = hn::Zero(F());
    }
  }
  int at = 0;
  for (; at + 2 * kN <= tile.inputs; at += 2 * kN) {
    Step<kRows, kCols>(tile, at, even);
    Step<kRows, kCols>(tile, at + kN, odd);
  }
  if (at + kN <= tile.inputs) {
    Step<kRows, kCols>(tile, at, even);
    at += kN;
    if (at < tile.inputs) {
      LastStep<kRows, kCols>(tile, at, odd);
    }
  } else if (at < tile.inputs) {
    LastStep<kRows, kCols>(tile, at, even);
  }
  HWY_UNROLL(4)
  for (int m = 0; m < kRows; ++m) {
    HWY_UNROLL(4)
    for (int c = 0; c < kCols; ++c) {
      const float sum = hn::ReduceSum(F(), hn::Add(even[m][c], odd[m][c]));
      float* y = tile.y + m * tile.y_stride + c;
      *y = tile.accumulate ? *y + sum : sum;
    }
  }
}

template <int kCols, class T>
void MultiplyRows(const Tile<T>& tile, int rows) {
  switch (rows) {
    case 1:
      return MultiplyTile<1, kCols>(tile);
    case 2:
      return MultiplyTile<2, kCols>(tile);
    case 3:
      return MultiplyTile<3, kCols>(tile);
    default:
      return MultiplyTile<4, kCols>(tile);
  }
}

/** What multiply_dense was asked for. */
template <class T>
struct Product {
  const float* x;
  int rows;
  const T* w;
  std::size_t w_rows;
  int cols;
  float* y;

  Tile<T> tile(int row, std::size_t weight, int at) const {
    return {
        x + static_cast<std::size_t>(row) * cols + at,
        static_cast<std::size_t>(cols),
        w + weight * cols + at,
        static_cast<std::size_t>(cols),
        std::min(kBlock, cols - at),
        y + row * w_rows + weight,
        w_rows,
        at > 0};
  }
};

/** Few rows: one weight row after another, each byte read once, in order. */
template <class T>
void MultiplyFewRows(const Product<T>& p, std::size_t first, std::size_t last) {
  for (std::size_t n = first; n < last; ++n) {
    for (int at = 0; at < p.cols; at += kBlock) {
      MultiplyRows<1>(p.tile(0, n, at), p.rows);
    }
  }
}

// A block of 6 weight rows stays in L1 (24 KB); 128 rows of x in L2 (512 KB).
constexpr int kGroup = 6;
constexpr int kXRows = 128;
// Rows of the copy start at different L1 sets.
constexpr int kCopyStride = kBlock + 16;

template <class T>
void UpconvertRow(const T* w, int n, float* out) {
  int i = 0;
  for (; i + kN <= n; i += kN) {
    hn::StoreU(LoadFloats(w + i), F(), out + i);
  }
  if (i < n) {
    hn::StoreN(LoadFloats(w + i, n - i), F(), out + i, n - i);
  }
}

/** One group of weight rows times rows [row0, row1) of x, one block of inputs.
 */
template <class T>
void MultiplyGroup(
    const Product<T>& p,
    std::size_t first,
    int count,
    int row0,
    int row1,
    int at) {
  alignas(64) float copy[kGroup * kCopyStride];
  const Tile<T> source = p.tile(row0, first, at);
  for (int c = 0; c < count; ++c) {
    UpconvertRow(
        source.w + c * source.w_stride, source.inputs, copy + c * kCopyStride);
  }
  for (int row = row0; row < row1; row += 4) {
    const int rows = std::min(4, row1 - row);
    for (int c = 0; c < count;) {
      const Tile<T> place = p.tile(row, first + c, at);
      const Tile<float> tile{
          place.x,
          place.x_stride,
          copy + c * kCopyStride,
          kCopyStride,
          place.inputs,
          place.y,
          place.y_stride,
          place.accumulate};
      if (count - c >= 3) {
        MultiplyRows<3>(tile, rows);
        c += 3;
      } else {
        MultiplyRows<1>(tile, rows);
        c += 1;
      }
    }
  }
}

template <class T>
void MultiplyManyRows(
    const Product<T>& p,
    std::size_t first,
    std::size_t last) {
  for (int row = 0; row < p.rows; row += kXRows) {
    const int row1 = std::min(p.rows, row + kXRows);
    for (int at = 0; at < p.cols; at += kBlock) {
      for (std::size_t n = first; n < last; n += kGroup) {
        const int count =
            static_cast<int>(std::min<std::size_t>(kGroup, last - n));
        MultiplyGroup(p, n, count, row, row1, at);
      }
    }
  }
}

template <class T>
void MultiplyTyped(
    const float* x,
    int rows,
    const DenseWeights& w,
    std::size_t first,
    std::size_t last,
    float* y) {
  const Product<T> product{
      x,
      rows,
      static_cast<const T*>(w.data),
      static_cast<std::size_t>(w.rows),
      w.cols,
      y};
  if (rows <= kDenseDirectRows) {
    MultiplyFewRows(product, first, last);
  } else {
    MultiplyManyRows(product, first, last);
  }
}

void MultiplyDense(
    const float* x,
    int rows,
    const DenseWeights& w,
    std::size_t first,
    std::size_t last,
    float* y) {
  switch (w.type) {
    case FloatType::BFloat16:
      return MultiplyTyped<hwy::bfloat16_t>(x, rows, w, first, last, y);
    case FloatType::Float16:
      return MultiplyTyped<hwy::float16_t>(x, rows, w, first, last, y);
    case FloatType::Float32:
      return MultiplyTyped<float>(x, rows, w, first, last, y);
  }
}

} // namespace
} // namespace HWY_NAMESPACE
} // namespace optiq::kernels::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels::cpu {

HWY_EXPORT(MultiplyDense);

void multiply_dense(
    const float* x,
    int rows,
    const DenseWeights& w,
    std::size_t first,
    std::size_t last,
    float* y) {
  HWY_DYNAMIC_DISPATCH(MultiplyDense)(x, rows, w, first, last, y);
}

} // namespace optiq::kernels::cpu
#endif
