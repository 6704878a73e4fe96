#include "optiq/quant/planned_tensors.h"

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "optiq/artifacts/module_id.h"

namespace optiq::quant {

std::uint64_t bytes_of(const mx::Shape& shape, mx::Dtype dtype) {
  std::uint64_t bytes = mx::size_of(dtype);
  for (const auto dim : shape) {
    bytes *= static_cast<std::uint64_t>(dim);
  }
  return bytes;
}

std::uint64_t bytes_of(const io::TensorToWrite& tensor) {
  return bytes_of(tensor.shape, tensor.dtype);
}

std::vector<io::TensorToWrite> quantized_tensors(
    const models::CheckpointTensor& weight,
    int bits,
    int group_size,
    const Rounder& rounder) {
  if (bits == artifacts::kDenseBits) {
    return {{weight.name, weight.dtype, weight.shape, weight.load}};
  }
  const std::string module = artifacts::split_tensor_name(weight.name).module;
  const int out = weight.shape[0];
  const int in = weight.shape[1];
  // Made with the first of the three, let go with the last: files are written
  // in this order.
  const auto made = std::make_shared<std::optional<kernels::AffineWeights>>();
  const auto quantize = [made, weight, bits, group_size, rounder]() {
    if (!made->has_value()) {
      *made = rounder(weight, bits, group_size);
    }
    return **made;
  };
  const mx::Shape packed = {out, in * bits / 32};
  const mx::Shape groups = {out, in / group_size};
  return {
      {module + ".weight",
       mx::uint32,
       packed,
       [quantize] { return quantize().weight; }},
      {module + ".scales",
       weight.dtype,
       groups,
       [quantize] { return quantize().scales; }},
      {module + ".biases",
       weight.dtype,
       groups,
       [quantize, made, drop = weight.drop] {
         mx::array biases = quantize().biases;
         made->reset();
         drop();
         return biases;
       }}};
}

std::uint64_t quantized_bytes(
    const models::CheckpointTensor& weight,
    int bits,
    int group_size) {
  std::uint64_t bytes = 0;
  for (const auto& tensor : quantized_tensors(weight, bits, group_size)) {
    bytes += bytes_of(tensor);
  }
  return bytes;
}

std::vector<io::TensorToWrite> planned_tensors(
    const models::Checkpoint& checkpoint,
    std::span<const artifacts::LayerBits> layers,
    const Rounder& rounder) {
  std::map<std::string, const artifacts::LayerBits*> by_module;
  for (const artifacts::LayerBits& layer : layers) {
    by_module[layer.name] = &layer;
  }
  std::vector<io::TensorToWrite> tensors;
  for (const models::CheckpointTensor& tensor : checkpoint.tensors) {
    if (tensor.role != models::TensorRole::Weight) {
      continue;
    }
    const auto [module, leaf] = artifacts::split_tensor_name(tensor.name);
    const auto it = by_module.find(module);
    if (leaf != "weight" || it == by_module.end()) {
      tensors.push_back({tensor.name, tensor.dtype, tensor.shape, tensor.load});
      continue;
    }
    for (auto& part : quantized_tensors(
             tensor, it->second->bits, it->second->group_size, rounder)) {
      tensors.push_back(std::move(part));
    }
  }
  return tensors;
}

std::uint64_t planned_bytes(
    const models::Checkpoint& checkpoint,
    std::span<const artifacts::LayerBits> layers) {
  return io::model_shards_bytes(planned_tensors(checkpoint, layers));
}

} // namespace optiq::quant
