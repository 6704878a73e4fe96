#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <mlx/array.h>

#include "optiq/artifacts/json.h"
#include "optiq/io/safetensors.h"

namespace optiq::io {

class GgufModel;

/** What the quantized matrices of a GGUF file appear as. */
enum class QuantizedForm {
  Affine, // to run: MLX's triples of exactly these values, where there are such
  Values, // to convert: float16, or the file's own dtype where it has one
};

/**
 * A Hugging Face or MLX model directory: config.json plus model*.safetensors
 * (which of them: weight_files.h). Or a GGUF file, which shows itself as the
 * directory that it was made from.
 */
class ModelDirectory {
 public:
  /** A directory, or a file whose name ends in ".gguf". Throws NotFound (no
   * directory, no config, a missing shard), Corrupt, Unsupported. */
  static ModelDirectory open(
      const std::filesystem::path& path,
      QuantizedForm form = QuantizedForm::Affine);

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
  /**
   * The same directory, to ask whether names and shapes fit: a model that is
   * loaded from it takes memory only for the tensors that `keeps` names; all
   * others are zeros.
   */
  ModelDirectory outline(
      std::function<bool(const std::string&)> keeps = nullptr) const;
  bool is_outline(const std::string& name) const {
    return is_outline_ && !(keeps_ && keeps_(name));
  }
  bool has(const std::string& name) const;
  /** Throws NotFound naming the directory and the tensor. */
  const TensorInfo& info(const std::string& name) const;
  mx::array load(const std::string& name) const;
  void drop(const std::string& name) const;
  /** Summed bytes of the weights' files. */
  std::uint64_t file_bytes() const {
    return file_bytes_;
  }
  /** Summed bytes of all tensors as load returns them. */
  std::uint64_t loaded_bytes() const;
  /** "model*.safetensors" or "GGUF file": what file_bytes counts. */
  const char* files_label() const;

  /** Text of a file beside the weights (tokenizer.json and the like), which a
   * GGUF file's metadata stands for; nothing when there is none. */
  std::optional<std::string> side_file(const std::string& name) const;
  /** What messages call it: "<path>/<name>". */
  std::string side_path(const std::string& name) const;
  /** Copies generation_config, tokenizer files, chat template, licence files
   * into another directory, leaving out what is absent. */
  void copy_side_files(const std::filesystem::path& to) const;
  /** Summed bytes of the files that copy_side_files makes. */
  std::uint64_t side_file_bytes() const;

 private:
  static ModelDirectory open_gguf(
      const std::filesystem::path& path,
      QuantizedForm form);
  std::filesystem::path path_;
  artifacts::Json config_;
  artifacts::Json generation_config_;
  std::vector<SafetensorsFile> shards_; // empty for a GGUF file
  std::shared_ptr<const GgufModel> gguf_; // null for a directory
  std::vector<TensorInfo> tensors_;
  /** Shard and place in it; of a GGUF file, 0 and the place. */
  std::map<std::string, std::pair<std::size_t, std::size_t>> index_;
  std::uint64_t file_bytes_ = 0;
  bool is_outline_ = false;
  std::function<bool(const std::string&)> keeps_; // of an outline
};

/** Whether copy_side_files takes a file of this name. */
bool is_side_file(const std::string& name);

/** As ModelDirectory::copy_side_files, of a real directory. */
void copy_side_files(
    const std::filesystem::path& from,
    const std::filesystem::path& to);

} // namespace optiq::io
