#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "optiq/artifacts/json.h"
#include "optiq/io/gguf/config.h"
#include "optiq/io/gguf/file.h"
#include "optiq/io/model_directory.h"

namespace optiq::io {

/**
 * A GGUF file seen as a model directory: configuration, tensors under Hugging
 * Face names, tokenizer files. Which form its quantized matrices take is
 * `form`. Immutable.
 */
class GgufModel {
 public:
  static std::shared_ptr<const GgufModel> open(
      const std::filesystem::path& path,
      QuantizedForm form);

  const artifacts::Json& config() const {
    return config_;
  }
  const std::vector<TensorInfo>& tensors() const {
    return infos_;
  }
  std::uint64_t file_bytes() const {
    return file_.file_bytes();
  }
  mx::array load(std::size_t index) const;
  /** The pages of this tensor will not be read again. */
  void drop(std::size_t index) const;
  /** The text that a side file of a directory would have, or nothing. */
  std::optional<std::string> side_file(const std::string& name) const;

 private:
  enum class Part { Values, Codes, Scales, Biases };
  /** What a tensor of the directory is in the file. */
  struct Source {
    std::size_t tensor = 0; // in file_.tensors()
    Part part = Part::Values;
    int head_dim = 0; // of InterleavedHeads
    bool shifted = false; // stored as 1 + w
  };

  GgufModel(GgufFile file, QuantizedForm form);
  void add_tensor(std::size_t index, QuantizedForm form);
  void add_affine(std::size_t index, const std::string& name, Source source);
  int head_dim_of(const GgufTensor& tensor, const std::string& name) const;
  mx::array load_values(const Source& source) const;
  mx::array load_rounded(std::size_t index) const;
  /** Values of a tensor in the dtype to convert. Throws Unsupported. */
  mx::array rounded(const mx::array& values, const GgufTensor& tensor) const;

  GgufFile file_;
  QuantizedForm form_;
  mx::Dtype dtype_; // of every tensor in the form Values
  GgufArchitecture architecture_;
  artifacts::Json config_;
  std::vector<TensorInfo> infos_;
  std::vector<Source> sources_; // as infos_
};

} // namespace optiq::io
