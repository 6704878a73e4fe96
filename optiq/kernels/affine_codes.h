#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "optiq/kernels/quantize.h"

namespace optiq::kernels {

/** Of every group of a matrix, [out, in / group]: its scale and the value in
 * the middle of its codes, m = bias + scale * (2^bits - 1) / 2. Unlike a bias,
 * which is the value of the least code, m moves the weights by itself. */
struct AffineScales {
  std::vector<float> scales;
  std::vector<float> middles;
};

/**
 * An affine triple on the host whose codes stay and whose scales and biases
 * change: w = scale * code + bias over groups along `in`. Row by row the codes
 * are a stream of bits, the first in the lowest.
 */
class AffineCodes {
 public:
  /** Throws InvalidInput for a format that MLX does not have. */
  AffineCodes(const AffineWeights& weights, int bits, int group_size);

  int rows() const {
    return rows_;
  }
  int columns() const {
    return columns_;
  }
  int groups() const { // of a row
    return columns_ / group_size_;
  }
  int bits() const {
    return bits_;
  }
  int group_size() const {
    return group_size_;
  }
  const AffineWeights& weights() const {
    return weights_;
  }
  AffineScales scales() const;
  /** The same codes with others, to the nearest in the dtype of the present
   * ones: first the scale, then the bias that goes with it as it is stored. */
  AffineWeights with_scales(const AffineScales& scales) const;
  /** Row `row` as values 0 to 2^bits - 1, to [in]. */
  void unpack(int row, std::span<std::uint8_t> to) const;
  /**
   * Adds what dL/dW says of scales and middles to `sums`: row r of `gradient`
   * [n, in] is that of row rows[r], each at most once. Sums have a fixed order.
   */
  void add_gradient(
      std::span<const int> rows,
      std::span<const float> gradient,
      AffineScales& sums) const;

 private:
  float middle() const { // of the codes
    return static_cast<float>((1 << bits_) - 1) / 2.f;
  }

  AffineWeights weights_; // on the host
  int bits_;
  int group_size_;
  int rows_;
  int columns_;
};

} // namespace optiq::kernels
