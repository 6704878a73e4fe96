#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>

#include "optiq/io/array.h"
#include "optiq/models/checkpoint.h"
#include "optiq/nn/linear.h"

namespace optiq::models {

/**
 * Takes the tensors of a checkpoint one by one into the parts of a model, on
 * its device, and knows, at the end, whether any was left over. Throws Corrupt
 * for a shape or dtype that does not fit, NotFound for a missing tensor.
 */
class WeightLoader {
 public:
  WeightLoader(
      const artifacts::Json& config,
      const Checkpoint& checkpoint,
      std::string where,
      kernels::Device& device)
      : config_(config),
        checkpoint_(checkpoint),
        where_(std::move(where)),
        device_(device) {}

  /** `module`.weight as a dense or quantized matrix [out, in], and
   * `module`.bias [out] where it has one. */
  nn::Linear
  linear(const std::string& module, int out, int in, bool has_bias = false);
  /** A small tensor, converted to float32, then changed on the host. */
  using Change = std::function<mx::array(const mx::array&)>;
  mx::array floats(
      const std::string& name,
      const mx::Shape& shape,
      const Change& change = {});
  /** The value of a tensor [1]. */
  float number(const std::string& name);
  /** A host array of float32 on the device. */
  mx::array upload(const mx::array& x) {
    return device_.upload(io::materialize(x));
  }
  /** Throws Corrupt naming a weight that no part of the model took. */
  void require_all_taken() const;
  /** Logical weights taken so far; a quantized matrix counts out * in. */
  std::uint64_t parameters() const {
    return parameters_;
  }

 private:
  kernels::Matrix matrix(const std::string& module, int out, int in);
  /** A small tensor, float32, on the host. */
  mx::array host_floats(const std::string& name, const mx::Shape& shape);
  /** Of an outline: takes no memory, only address space. */
  kernels::Matrix zero_matrix(int out, int in);

  const artifacts::Json& config_;
  const Checkpoint& checkpoint_;
  std::string where_;
  kernels::Device& device_;
  std::set<std::string> taken_;
  std::uint64_t parameters_ = 0;
  std::shared_ptr<const void> zeros_; // zero_bytes_ of them
  std::size_t zero_bytes_ = 0;
};

} // namespace optiq::models
