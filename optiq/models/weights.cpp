#include "optiq/models/weights.h"

#include <fmt/ranges.h>
#include <mlx/ops.h>

#include "optiq/base/error.h"
#include "optiq/base/pages.h"
#include "optiq/io/array.h"
#include "optiq/io/spilled.h"
#include "optiq/models/quantization.h"
#include "optiq/models/shape_keys_impl.h"

namespace optiq::models {
namespace {

void require_shape(
    const std::string& where,
    const CheckpointTensor& tensor,
    const mx::Shape& expected) {
  if (tensor.shape != expected) {
    const std::string keys =
        config_keys_of(tensor.name, tensor.shape, expected);
    fail(
        ErrorKind::Corrupt,
        "[load_model] {}: tensor '{}' has shape [{}], config.json{} asks for "
        "[{}]. Is it of another model?",
        where,
        tensor.source,
        fmt::join(tensor.shape, ", "),
        keys.empty() ? "" : " (" + keys + ")",
        fmt::join(expected, ", "));
  }
}

void require_float(const std::string& where, const CheckpointTensor& tensor) {
  if (tensor.unreadable != nullptr) {
    tensor.load(); // refuses it, with the dtype's name
  }
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
  nn::Linear linear{
      module, artifacts::module_id(module), matrix(module, out, in)};
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
  const auto quantization = quantization_of(config_, checkpoint_, module, in);
  if (!quantization) {
    require_shape(where_, weight, {out, in});
    require_float(where_, weight);
    return weight.is_outline ? zero_matrix(out, in)
                             : device_.dense(io::spilled(weight.load()));
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
  if (weight.is_outline) {
    return zero_matrix(out, in);
  }
  kernels::Matrix packed = device_.quantized(
      weight.load(), scales.load(), biases.load(), bits, group_size);
  // The matrix is a repacked copy: the file's pages are not needed again.
  weight.drop();
  return packed;
}

kernels::Matrix WeightLoader::zero_matrix(int out, int in) {
  const std::size_t bytes =
      mx::size_of(mx::bfloat16) * static_cast<std::size_t>(out) * in;
  if (bytes > zero_bytes_) {
    zeros_ = zero_pages(bytes);
    zero_bytes_ = bytes;
  }
  return device_.dense(
      io::view_array(zeros_.get(), {out, in}, mx::bfloat16, zeros_));
}

mx::array WeightLoader::floats(
    const std::string& name,
    const mx::Shape& shape,
    const Change& change) {
  const mx::array x = host_floats(name, shape);
  return upload(change ? change(x) : x);
}

float WeightLoader::number(const std::string& name) {
  return io::floats(host_floats(name, {1})).front();
}

mx::array WeightLoader::host_floats(
    const std::string& name,
    const mx::Shape& shape) {
  const CheckpointTensor& tensor = checkpoint_.at(name);
  require_shape(where_, tensor, shape);
  require_float(where_, tensor);
  mx::array x = tensor.is_outline ? io::materialize(mx::zeros(shape))
      : tensor.load_unrounded     ? tensor.load_unrounded()
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
          "[load_model] {}: tensor '{}' has no place in the model that "
          "config.json describes. Is it of another model (num_hidden_layers, "
          "tie_word_embeddings)?",
          where_,
          tensor.source);
    }
  }
}

} // namespace optiq::models
