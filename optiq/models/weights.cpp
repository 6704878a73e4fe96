#include "optiq/models/weights.h"

#include <fmt/ranges.h>
#include <mlx/ops.h>

#include "optiq/base/error.h"
#include "optiq/io/array.h"

namespace optiq::models {
namespace {

void require_shape(
    const std::string& where,
    const CheckpointTensor& tensor,
    const mx::Shape& expected) {
  if (tensor.shape != expected) {
    fail(
        ErrorKind::Corrupt,
        "[load_model] {}: tensor '{}' has shape [{}], config.json asks for "
        "[{}]",
        where,
        tensor.source,
        fmt::join(tensor.shape, ", "),
        fmt::join(expected, ", "));
  }
}

void require_float(const std::string& where, const CheckpointTensor& tensor) {
  if (tensor.dtype != mx::float32 && tensor.dtype != mx::float16 &&
      tensor.dtype != mx::bfloat16) {
    fail(
        ErrorKind::Unsupported,
        "[load_model] {}: tensor '{}' has a dtype other than F32, F16 or BF16",
        where,
        tensor.source);
  }
}

/** f16 and bf16 widen exactly; small tensors only. */
mx::array to_float32(const mx::array& x) {
  return io::materialize(mx::astype(x, mx::float32));
}

} // namespace

nn::Linear WeightLoader::linear(
    const std::string& module,
    int out,
    int in,
    bool has_bias) {
  nn::Linear linear{module, matrix(module, out, in)};
  if (has_bias) {
    linear.bias = floats(module + ".bias", {out});
  }
  return linear;
}

kernels::Matrix
WeightLoader::matrix(const std::string& module, int out, int in) {
  const CheckpointTensor& weight = checkpoint_.at(module + ".weight");
  taken_.insert(weight.name);
  parameters_ += static_cast<std::uint64_t>(out) * in;
  const auto quantization = quantization_of(config_, checkpoint_, module);
  if (!quantization) {
    require_shape(where_, weight, {out, in});
    require_float(where_, weight);
    return kernels::Matrix::dense(weight.load());
  }
  const auto [bits, group_size] = *quantization;
  const CheckpointTensor& scales = checkpoint_.at(module + ".scales");
  const CheckpointTensor& biases = checkpoint_.at(module + ".biases");
  require_shape(where_, scales, {out, in / group_size});
  require_shape(
      where_,
      weight,
      {out, static_cast<int>(static_cast<std::int64_t>(in) * bits / 32)});
  taken_.insert(scales.name);
  taken_.insert(biases.name);
  kernels::Matrix packed = kernels::Matrix::quantized(
      weight.load(), scales.load(), biases.load(), bits, group_size);
  // The matrix is a repacked copy: the file's pages are not needed again.
  weight.drop();
  return packed;
}

mx::array WeightLoader::floats(
    const std::string& name,
    const mx::Shape& shape) {
  const CheckpointTensor& tensor = checkpoint_.at(name);
  require_shape(where_, tensor, shape);
  require_float(where_, tensor);
  mx::array x = tensor.load_unrounded ? tensor.load_unrounded()
                                      : to_float32(tensor.load());
  if (taken_.insert(name).second) { // a norm may be read twice
    parameters_ += x.size();
  }
  return x;
}

void WeightLoader::require_all_taken() const {
  for (const CheckpointTensor& tensor : checkpoint_.tensors) {
    if (tensor.role == TensorRole::Weight && !taken_.contains(tensor.name)) {
      fail(
          ErrorKind::Corrupt,
          "[load_model] {}: tensor '{}' has no place in this model. Does "
          "config.json belong to these weights?",
          where_,
          tensor.source);
    }
  }
}

} // namespace optiq::models
