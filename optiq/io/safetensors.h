#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <mlx/array.h>

#include "optiq/base/file.h"

namespace optiq::io {

namespace mx = mlx::core;

/** One entry of a safetensors header. */
struct TensorInfo {
  std::string name;
  mx::Dtype dtype = mx::float32;
  mx::Shape shape;
  std::uint64_t offset = 0; // from the start of the file, bytes
  std::uint64_t nbytes = 0;
  /** Name of a dtype that nothing here computes with ("F64", "F8_E4M3"): such
   * a tensor is listed, and load refuses it. */
  const char* unreadable = nullptr;
};

/**
 * A safetensors file (https://github.com/huggingface/safetensors), mapped
 * tensor by tensor: only what is loaded takes address space.
 * Opening checks every invariant of the format: header length, no duplicate
 * names, no overlap, no hole, no byte outside, checked products.
 */
class SafetensorsFile {
 public:
  static SafetensorsFile open(const std::filesystem::path& path);

  /** In the order of the data section. */
  const std::vector<TensorInfo>& tensors() const {
    return tensors_;
  }
  const std::map<std::string, std::string>& metadata() const {
    return metadata_;
  }
  /** The tensor as an array: a view of a mapping where it is large and its
   * offset is aligned for its dtype, else a copy. Throws Unsupported for an
   * unreadable one. */
  mx::array load(const TensorInfo& tensor) const;
  /** Lets the kernel drop the pages of a tensor that will not be read again,
   * where an array of it still lives. */
  void drop(const TensorInfo& tensor) const;

 private:
  struct Mappings;
  std::shared_ptr<const InputFile> file_;
  std::shared_ptr<Mappings> mappings_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
};

/** A tensor to be written: what it is, and a callback that makes it when its
 * turn comes (so that one tensor at a time is in memory). */
struct TensorToWrite {
  std::string name;
  mx::Dtype dtype = mx::float32;
  mx::Shape shape;
  std::function<mx::array()> make; // must return that dtype and shape
};

/** Bytes of the file that write_safetensors makes of these tensors. */
std::uint64_t safetensors_bytes(
    const std::vector<TensorToWrite>& tensors,
    const std::map<std::string, std::string>& metadata);

/**
 * Writes one file in the given order, header padded to 8 bytes, byte for byte
 * reproducible, and fsyncs it. Throws InvalidInput (a name twice, or a tensor
 * that is not as announced), Exhausted (disk full, with needed bytes), Denied,
 * Io; then nothing is left at `path`.
 */
void write_safetensors(
    const std::filesystem::path& path,
    const std::vector<TensorToWrite>& tensors,
    const std::map<std::string, std::string>& metadata);

/** Bytes of one shard at most (as mlx-lm: 5 GiB). */
inline constexpr std::uint64_t kMaxShardBytes = 5ull << 30;

/** Summed bytes of the model*.safetensors files that write_model_shards makes
 * of these tensors. */
std::uint64_t model_shards_bytes(
    const std::vector<TensorToWrite>& tensors,
    std::uint64_t max_shard_bytes = kMaxShardBytes);

/** Content of the weight index that write_model_shards makes. */
std::string make_weight_index(
    const std::vector<TensorToWrite>& tensors,
    std::uint64_t total_parameters,
    std::uint64_t max_shard_bytes = kMaxShardBytes);

/**
 * Writes `model.safetensors` or `model-00001-of-0000N.safetensors` plus
 * model.safetensors.index.json into `directory`. `total_parameters` goes into
 * the index. Returns the summed bytes of the model*.safetensors files.
 */
std::uint64_t write_model_shards(
    const std::filesystem::path& directory,
    const std::vector<TensorToWrite>& tensors,
    std::uint64_t total_parameters,
    std::uint64_t max_shard_bytes = kMaxShardBytes);

} // namespace optiq::io
