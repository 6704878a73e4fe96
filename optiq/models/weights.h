#pragma once

#include <memory>
#include <set>
#include <string>

#include "optiq/models/checkpoint.h"
#include "optiq/nn/linear.h"

namespace optiq::models {

/**
 * Takes the tensors of a checkpoint one by one into the parts of a model and
 * knows, at the end, whether any was left over. Throws Corrupt for a shape or
 * dtype that does not fit, NotFound for a missing tensor.
 */
class WeightLoader {
 public:
  WeightLoader(
      const artifacts::Json& config,
      const Checkpoint& checkpoint,
      std::string where)
      : config_(config), checkpoint_(checkpoint), where_(std::move(where)) {}

  /** `module`.weight as a dense or quantized matrix [out, in], and
   * `module`.bias [out] where it has one. */
  nn::Linear
  linear(const std::string& module, int out, int in, bool has_bias = false);
  /** A small tensor, converted to float32. */
  mx::array floats(const std::string& name, const mx::Shape& shape);
  /** Throws Corrupt naming a weight that no part of the model took. */
  void require_all_taken() const;
  /** Logical weights taken so far; a quantized matrix counts out * in. */
  std::uint64_t parameters() const {
    return parameters_;
  }

 private:
  kernels::Matrix matrix(const std::string& module, int out, int in);
  /** Of an outline: takes no memory, only address space. */
  kernels::Matrix zero_matrix(int out, int in);

  const artifacts::Json& config_;
  const Checkpoint& checkpoint_;
  std::string where_;
  std::set<std::string> taken_;
  std::uint64_t parameters_ = 0;
  std::shared_ptr<const void> zeros_; // zero_bytes_ of them
  std::size_t zero_bytes_ = 0;
};

} // namespace optiq::models
