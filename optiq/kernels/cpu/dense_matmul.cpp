#include "optiq/kernels/cpu/dense_matmul.h"

#include <algorithm>

#include "optiq/kernels/cpu/dense_sizes_impl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optiq/kernels/cpu/dense_matmul.cpp"
#include <hwy/foreach_target.h>
// foreach_target.h comes first.
#include <hwy/cache_control.h>
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
  int inputs; // up to kDenseBlock
  float* y;
  std::size_t y_stride;
  bool accumulate; // onto y: not the first block of inputs
};

/** Where the weights of a tile lie. */
enum class From {
  Memory, // as they are stored, read once: fetched ahead
  Copy // zeros fill up the last two vectors
};

// Linear in each row's stream, so that all of them together fetch every line.
constexpr std::size_t kFetchBytes = 4096;

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

/** The last inputs, fewer than two vectors: zeros fill both. */
template <int kRows, int kCols, class T>
HWY_INLINE void LastStep(const Tile<T>& tile, int at, Sums<kRows, kCols>& acc) {
  const std::size_t n = std::clamp(tile.inputs - at, 0, kN);
  HWY_UNROLL(4)
  for (int m = 0; m < kRows; ++m) {
    const auto x = LoadFloats(tile.x + m * tile.x_stride + at, n);
    HWY_UNROLL(4)
    for (int c = 0; c < kCols; ++c) {
      const auto w = LoadFloats(tile.w + c * tile.w_stride + at, n);
      acc[m][c] = hn::MulAdd(x, w, acc[m][c]);
    }
  }
}

template <int kCols, class T>
HWY_INLINE void Fetch(const Tile<T>& tile, int at) {
  HWY_UNROLL(4)
  for (int c = 0; c < kCols; ++c) {
    hwy::Prefetch(tile.w + c * tile.w_stride + at + kFetchBytes / sizeof(T));
  }
}

template <From kFrom, int kRows, int kCols, class T>
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
    if constexpr (kFrom == From::Memory) {
      Fetch<kCols>(tile, at);
    }
    Step<kRows, kCols>(tile, at, even);
    Step<kRows, kCols>(tile, at + kN, odd);
  }
  if constexpr (kFrom == From::Memory) {
    if (at < tile.inputs) {
      LastStep<kRows, kCols>(tile, at, even);
      LastStep<kRows, kCols>(tile, at + kN, odd);
    }
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
      return MultiplyTile<From::Copy, 1, kCols>(tile);
    case 2:
      return MultiplyTile<From::Copy, 2, kCols>(tile);
    case 3:
      return MultiplyTile<From::Copy, 3, kCols>(tile);
    default:
      return MultiplyTile<From::Copy, 4, kCols>(tile);
  }
}

/** What multiply_dense was asked for. */
template <class T>
struct Product {
  const float* x;
  int rows;
  const T* w;
  int cols;
  Output to;
  std::size_t first; // column at to.y

  Tile<T> tile(int row, std::size_t weight, int at) const {
    return {
        x + static_cast<std::size_t>(row) * cols + at,
        static_cast<std::size_t>(cols),
        w + weight * cols + at,
        static_cast<std::size_t>(cols),
        std::min(kDenseBlock, cols - at),
        to.y + row * to.stride + (weight - first),
        to.stride,
        at > 0};
  }
};

/** Few rows: kCols weight rows at a time, each byte read once. */
template <int kRows, int kCols, class T>
void MultiplyFewRows(const Product<T>& p, std::size_t first, std::size_t last) {
  std::size_t n = first;
  for (; n + kCols <= last; n += kCols) {
    for (int at = 0; at < p.cols; at += kDenseBlock) {
      MultiplyTile<From::Memory, kRows, kCols>(p.tile(0, n, at));
    }
  }
  for (; n < last; ++n) {
    for (int at = 0; at < p.cols; at += kDenseBlock) {
      MultiplyTile<From::Memory, kRows, 1>(p.tile(0, n, at));
    }
  }
}

/** Copies a row and returns its padded length. While it is read, the row that
 * will take its place is fetched. */
template <class T>
int CopyRow(const T* from, int n, std::size_t next, float* to) {
  int i = 0;
  for (; i + kN <= n; i += kN) {
    hwy::Prefetch(from + next + i);
    hn::StoreU(LoadFloats(from + i), F(), to + i);
  }
  const int padded = (n + 2 * kN - 1) / (2 * kN) * (2 * kN);
  for (; i < padded; i += kN) {
    hn::StoreU(LoadFloats(from + i, std::max(0, n - i)), F(), to + i);
  }
  return padded;
}

/** Copies of up to kDenseXRows rows of x, and their sums. */
struct Scratch {
  float* x; // [rows][kDenseCopyStride], one block of inputs
  float* sums; // [rows][kDenseSumStride]
  int rows;
};

/** One group of weight rows times the copied rows of x, one block of inputs,
 * into the sums from column `to` on. */
template <class T>
void MultiplyGroup(
    const Tile<T>& source,
    int count,
    const Scratch& scratch,
    int to) {
  alignas(64) float copy[kDenseGroup * kDenseCopyStride];
  int padded = 0;
  for (int c = 0; c < count; ++c) {
    padded = CopyRow(
        source.w + c * source.w_stride,
        source.inputs,
        kDenseGroup * source.w_stride,
        copy + c * kDenseCopyStride);
  }
  for (int row = 0; row < scratch.rows; row += 4) {
    const int rows = std::min(4, scratch.rows - row);
    for (int c = 0; c < count;) {
      const Tile<float> tile{
          scratch.x + row * kDenseCopyStride,
          kDenseCopyStride,
          copy + c * kDenseCopyStride,
          kDenseCopyStride,
          padded,
          scratch.sums + row * kDenseSumStride + to + c,
          kDenseSumStride,
          source.accumulate};
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

/** All inputs of some columns, for the rows of x from `row` on. */
template <class T>
void MultiplyColumns(
    const Product<T>& p,
    int row,
    std::size_t first,
    std::size_t last,
    const Scratch& scratch) {
  for (int at = 0; at < p.cols; at += kDenseBlock) {
    for (int r = 0; r < scratch.rows; ++r) {
      const Tile<T> source = p.tile(row + r, first, at);
      CopyRow(source.x, source.inputs, 0, scratch.x + r * kDenseCopyStride);
    }
    for (std::size_t n = first; n < last; n += kDenseGroup) {
      MultiplyGroup(
          p.tile(row, n, at),
          static_cast<int>(std::min<std::size_t>(kDenseGroup, last - n)),
          scratch,
          static_cast<int>(n - first));
    }
  }
  for (int r = 0; r < scratch.rows; ++r) {
    const float* sums = scratch.sums + r * kDenseSumStride;
    std::copy(
        sums,
        sums + (last - first),
        p.to.y + (row + r) * p.to.stride + (first - p.first));
  }
}

template <class T>
void MultiplyManyRows(
    const Product<T>& p,
    std::size_t first,
    std::size_t last,
    float* memory) {
  for (int row = 0; row < p.rows; row += kDenseXRows) {
    const int rows = std::min(kDenseXRows, p.rows - row);
    const Scratch scratch{memory, memory + rows * kDenseCopyStride, rows};
    for (std::size_t n = first; n < last; n += kDenseCols) {
      MultiplyColumns(
          p, row, n, std::min<std::size_t>(last, n + kDenseCols), scratch);
    }
  }
}

template <class T>
void MultiplyTyped(
    const DenseProduct& product,
    std::size_t first,
    std::size_t last,
    float* scratch) {
  const DenseWeights& w = product.weights;
  const Product<T> typed{
      product.x,
      product.rows,
      static_cast<const T*>(w.data),
      w.cols,
      product.to,
      first};
  switch (product.rows) {
    case 1:
      return MultiplyFewRows<1, 4>(typed, first, last);
    case 2:
      return MultiplyFewRows<2, 4>(typed, first, last);
    case 3:
      return MultiplyFewRows<3, 2>(typed, first, last);
    case 4:
      return MultiplyFewRows<4, 2>(typed, first, last);
    default:
      return MultiplyManyRows(typed, first, last, scratch);
  }
}

void MultiplyDense(
    const DenseProduct& product,
    std::size_t first,
    std::size_t last,
    float* scratch) {
  switch (product.weights.type) {
    case FloatType::BFloat16:
      return MultiplyTyped<hwy::bfloat16_t>(product, first, last, scratch);
    case FloatType::Float16:
      return MultiplyTyped<hwy::float16_t>(product, first, last, scratch);
    case FloatType::Float32:
      return MultiplyTyped<float>(product, first, last, scratch);
  }
}

} // namespace
} // namespace HWY_NAMESPACE
} // namespace optiq::kernels::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace optiq::kernels::cpu {

HWY_EXPORT(MultiplyDense);

std::size_t dense_scratch(int rows) {
  const auto copied = static_cast<std::size_t>(
      rows <= kDenseDirectRows ? 0 : std::min(rows, kDenseXRows));
  return copied * (kDenseCopyStride + kDenseSumStride);
}

void multiply_dense(
    const DenseProduct& product,
    std::size_t first,
    std::size_t last,
    float* scratch) {
  HWY_DYNAMIC_DISPATCH(MultiplyDense)(product, first, last, scratch);
}

} // namespace optiq::kernels::cpu
#endif
