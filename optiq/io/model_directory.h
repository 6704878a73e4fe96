#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <mlx/array.h>

#include "optiq/artifacts/json.h"
#include "optiq/io/safetensors.h"

namespace optiq::io {

/**
 * A Hugging Face or MLX model directory: config.json plus model*.safetensors
 * (shards named by the index when there is one, else by the glob).
 */
class ModelDirectory {
 public:
  /** Throws NotFound (no directory, no config, a missing shard), Corrupt. */
  static ModelDirectory open(const std::filesystem::path& path);

  const std::filesystem::path& path() const {
    return path_;
  }
  const artifacts::Json& config() const {
    return config_;
  }
  /** generation_config.json, or an empty object. */
  const artifacts::Json& generation_config() const {
    return generation_config_;
  }
  /** All tensors of all shards, in file order: shard by shard. */
  const std::vector<TensorInfo>& tensors() const {
    return tensors_;
  }
  bool has(const std::string& name) const;
  /** Throws NotFound naming the directory and the tensor. */
  const TensorInfo& info(const std::string& name) const;
  mx::array load(const std::string& name) const;
  void drop(const std::string& name) const;
  /** Summed bytes of the shards. */
  std::uint64_t file_bytes() const {
    return file_bytes_;
  }

 private:
  std::filesystem::path path_;
  artifacts::Json config_;
  artifacts::Json generation_config_;
  std::vector<SafetensorsFile> shards_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, std::pair<std::size_t, std::size_t>> index_;
  std::uint64_t file_bytes_ = 0;
};

/** Copies generation_config, tokenizer files, chat template, licence files
 * from one model directory into another, leaving out what is absent. */
void copy_side_files(
    const std::filesystem::path& from,
    const std::filesystem::path& to);

} // namespace optiq::io
