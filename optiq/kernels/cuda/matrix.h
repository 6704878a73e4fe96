#pragma once

#include "optiq/kernels/cuda/arguments.h"
#include "optiq/kernels/cuda/card.h"
#include "optiq/kernels/matrix.h"

namespace optiq::kernels::cuda {

inline constexpr const char* kDeviceName = "cuda";

/** How a matrix lies on a card. */
enum class Layout {
  Packed, // packed_layout.h: codes with halves as scales, for tensor cores
  Dense, // float16 [out, in] times a power of two, for tensor cores
  Plain, // as in the file, for products in float32
};

struct MatrixData final : MatrixStorage {
  const Card* card = nullptr;
  Layout layout = Layout::Plain;
  Buffer weight;
  Buffer params; // packed: pairs of scale and bias
  Number param_type = Number::BFloat16;
  /** Packed: a power of two, weights times it below 2^15. */
  float factor = 1.f;
  /** Dense: a power of two, what is stored times it are the weights: to 11
   * bits, which is all that bfloat16 and float16 have, or 2^-40 of the largest.
   */
  float unit = 1.f;
  Buffer scales; // plain and quantized
  Buffer biases;
  Number type = Number::Float32; // plain: of the weight, or of the scales

  PlainMatrix plain() const;
};

/** A host array, or one of the card's, which is then used as it lies. */
Matrix dense_matrix(Card& card, const mx::array& weight);
Matrix quantized_matrix(
    Card& card,
    const mx::array& weight,
    const mx::array& scales,
    const mx::array& biases,
    int bits,
    int group_size);

/** Throws InvalidInput for a matrix of another device. */
const MatrixData&
data_of(const char* function, const Card& card, const Matrix& matrix);

/** Rows of a matrix: `ids`, on the card, or those from `first` on. */
struct LookedUp {
  const int* ids = nullptr;
  int first = 0;
  int count = 0;
};

/** Those rows' values in floats, times scale. */
void look_up(
    Card& card,
    const MatrixData& data,
    const LookedUp& rows,
    float scale,
    float* to);

/** Throws InvalidInput unless dtype is bf16, f16 or f32. */
Number number_of(const char* function, const char* what, mx::Dtype dtype);

} // namespace optiq::kernels::cuda
