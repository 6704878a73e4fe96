#include "optiq/models/model_map.h"

#include <filesystem>
#include <set>
#include <string>

#include <mlx/dtype.h>

#include "optiq/artifacts/module_id.h"
#include "optiq/io/hub/cache.h"
#include "optiq/models/checkpoint.h"
#include "optiq/models/quantization.h"

namespace optiq::models {
namespace {

std::uint64_t element_count(const mx::Shape& shape) {
  std::uint64_t count = 1;
  for (const auto dim : shape) {
    count *= static_cast<std::uint64_t>(dim);
  }
  return count;
}

/** Adds the tensors of a checkpoint to a map, one by one. */
class Mapper {
 public:
  Mapper(const io::ModelDirectory& directory, const Checkpoint& checkpoint)
      : directory_(directory), checkpoint_(checkpoint) {}

  void add(const CheckpointTensor& tensor) {
    sources_.insert(tensor.source);
    const auto [module, leaf] = artifacts::split_tensor_name(tensor.name);
    if (tensor.role != TensorRole::Weight) {
      add_extra(directory_.info(tensor.source));
    } else if (leaf == "weight") {
      add_weight(tensor, module);
    } else if (!is_scale(module, leaf)) {
      add_other(tensor);
    }
  }

  /** Tensors that the model does not use, headers, sidecars. */
  artifacts::ModelMap finish() && {
    std::uint64_t data_bytes = 0;
    for (const io::TensorInfo& info : directory_.tensors()) {
      data_bytes += info.nbytes;
      if (!sources_.contains(info.name)) {
        add_extra(info);
      }
    }
    map_.header_bytes = directory_.file_bytes() - data_bytes;
    return std::move(map_);
  }

 private:
  std::uint64_t stored_bytes(const std::string& name) const {
    return directory_.info(checkpoint_.at(name).source).nbytes;
  }

  /** Whether the tensor is counted with its quantized weight. */
  bool is_scale(const std::string& module, const std::string& leaf) const {
    return (leaf == "scales" || leaf == "biases") &&
        checkpoint_.has(module + ".scales");
  }

  void add_extra(const io::TensorInfo& info) {
    map_.extra_bytes += info.nbytes;
    map_.extra_parameters += element_count(info.shape);
  }

  void add_other(const CheckpointTensor& tensor) {
    map_.other_bytes += directory_.info(tensor.source).nbytes;
    map_.other_parameters += element_count(tensor.shape);
  }

  void add_weight(const CheckpointTensor& tensor, const std::string& module) {
    const auto quantization =
        quantization_of(directory_.config(), checkpoint_, module);
    if (!quantization && tensor.shape.size() != 2) {
      add_other(tensor); // a norm or a convolution
      return;
    }
    artifacts::MappedModule mapped{
        .name = module, .code_bytes = stored_bytes(tensor.name)};
    if (quantization) {
      mapped.bits = quantization->bits;
      mapped.group_size = quantization->group_size;
      mapped.parameters = element_count(tensor.shape) * 32 / mapped.bits;
      mapped.scale_bytes =
          stored_bytes(module + ".scales") + stored_bytes(module + ".biases");
    } else {
      mapped.bits = static_cast<int>(8 * mx::size_of(tensor.dtype));
      mapped.parameters = element_count(tensor.shape);
    }
    map_.modules.push_back(std::move(mapped));
  }

  const io::ModelDirectory& directory_;
  const Checkpoint& checkpoint_;
  artifacts::ModelMap map_;
  std::set<std::string> sources_; // tensors that are counted
};

std::uint64_t sidecar_bytes(const std::filesystem::path& directory) {
  std::uint64_t bytes = 0;
  std::error_code missing; // no optiq/ folder: no sidecars
  for (const auto& entry :
       std::filesystem::directory_iterator(directory / "optiq", missing)) {
    if (entry.path().extension() == ".safetensors") {
      bytes += entry.file_size();
    }
  }
  return bytes;
}

} // namespace

artifacts::ModelMap map_model(const io::ModelDirectory& directory) {
  const Checkpoint checkpoint = open_checkpoint(directory);
  Mapper mapper(directory, checkpoint);
  for (const CheckpointTensor& tensor : checkpoint.tensors) {
    mapper.add(tensor);
  }
  artifacts::ModelMap map = std::move(mapper).finish();
  map.name =
      io::repo_of_snapshot(directory.path())
          .value_or(
              std::filesystem::canonical(directory.path()).filename().string());
  map.model_type = artifacts::required<std::string>(
      directory.config(),
      "model_type",
      (directory.path() / "config.json").string());
  map.sidecar_bytes = sidecar_bytes(directory.path());
  return map;
}

} // namespace optiq::models
