#pragma once

#include <cstdint>
#include <memory>

#include <mlx/array.h>

namespace optiq::kernels {

namespace mx = mlx::core;

/** Arithmetic of a forward on quantized weights, where activations become one
 * or two int8 digits per value with a scale per 64. */
enum class Compute {
  Int8, // one digit (error of a product 6e-3), K/V in bfloat16
  Fast, // two digits (2e-5 .. 5e-5), K/V in bfloat16
  Exact, // two digits, K/V in float32
};

/** "int8", "fast" or "exact". */
const char* name_of(Compute compute);

/** A matrix as its device keeps it; the device derives from it. */
struct MatrixStorage {
  virtual ~MatrixStorage() = default;

  const char* device = ""; // whose
  int out = 0;
  int in = 0;
  int bits = 0; // 16 or 32 when dense
  int group_size = 0; // 0 when dense
  std::uint64_t nbytes = 0; // resident: mapped or packed
};

/** An immutable weight matrix [out, in], dense or affine-quantized, that lies
 * on a device: Device::dense and Device::quantized make it. */
class Matrix {
 public:
  explicit Matrix(std::shared_ptr<const MatrixStorage> storage)
      : storage_(std::move(storage)) {}

  int out_features() const {
    return storage_->out;
  }
  int in_features() const {
    return storage_->in;
  }
  bool is_quantized() const {
    return storage_->group_size > 0;
  }
  int bits() const {
    return storage_->bits;
  }
  int group_size() const {
    return storage_->group_size;
  }
  std::uint64_t nbytes() const {
    return storage_->nbytes;
  }
  const MatrixStorage& storage() const {
    return *storage_;
  }

 private:
  std::shared_ptr<const MatrixStorage> storage_;
};

} // namespace optiq::kernels
