#include "optiq/io/model_directory.h"

#include <algorithm>
#include <set>
#include <utility>

#include "optiq/base/error.h"
#include "optiq/base/output_file.h"
#include "optiq/io/gguf/model.h"
#include "optiq/io/model_files.h"
#include "optiq/io/weight_files.h"

namespace optiq::io {
namespace {

namespace fs = std::filesystem;
using artifacts::Json;

constexpr std::size_t kMaxSideFileBytes = 256u << 20;

Json read_config(const fs::path& path) {
  Json config = artifacts::read_json_file(path);
  if (!config.is_object()) {
    fail(
        ErrorKind::Corrupt,
        "[ModelDirectory] {}: found {}, expected an object",
        path.string(),
        artifacts::describe(config));
  }
  artifacts::decode_tagged_floats(config, path.string());
  return config;
}

/** A GGUF file in the folder, by name: what the user may have meant. */
std::string gguf_hint(const fs::path& directory) {
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    if (entry.path().extension() == ".gguf") {
      return fmt::format(
          ". To use {}, name the file itself",
          entry.path().filename().string());
    }
  }
  return "";
}

/** Says what the directory holds instead of safetensors. */
[[noreturn]] void fail_no_weights(const fs::path& directory) {
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".bin") || name.ends_with(".pth") ||
        name.ends_with(".pt")) {
      fail(
          ErrorKind::Unsupported,
          "[ModelDirectory] {}: found weights as {} only, expected "
          "model*.safetensors. Save the model as safetensors first",
          directory.string(),
          name);
    }
  }
  fail(
      ErrorKind::NotFound,
      "[ModelDirectory] {}: found no model*.safetensors{}",
      directory.string(),
      gguf_hint(directory));
}

std::set<std::string> side_file_names(const fs::path& directory) {
  std::set<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    // is_regular_file follows links: a hub cache holds nothing else.
    if (is_side_file(name) && entry.is_regular_file()) {
      names.insert(name);
    }
  }
  return names;
}

std::vector<std::string> find_shards(const fs::path& directory) {
  const WeightFiles files = find_weight_files(directory);
  if (!files.missing.empty()) {
    fail(
        ErrorKind::NotFound,
        "[ModelDirectory] {}: has {} of the {} files of its weights, {} is "
        "missing{}. Interrupted download?",
        directory.string(),
        files.names.size() - files.missing.size(),
        files.names.size(),
        files.missing.front(),
        fs::exists(directory / kWeightIndexName)
            ? fmt::format(" ({} names it)", kWeightIndexName)
            : "");
  }
  if (files.names.empty()) {
    fail_no_weights(directory);
  }
  return files.names;
}

} // namespace

ModelDirectory ModelDirectory::open_gguf(
    const fs::path& path,
    QuantizedForm form) {
  ModelDirectory result;
  result.path_ = path;
  result.gguf_ = GgufModel::open(path, form);
  result.config_ = result.gguf_->config();
  result.generation_config_ = artifacts::parse_json(
      result.side_file("generation_config.json").value(),
      result.side_path("generation_config.json"));
  result.tensors_ = result.gguf_->tensors();
  for (std::size_t i = 0; i < result.tensors_.size(); ++i) {
    // Names are unique: so are those of the file, and renaming keeps it so.
    result.index_.emplace(result.tensors_[i].name, std::pair(0, i));
  }
  result.file_bytes_ = result.gguf_->file_bytes();
  return result;
}

ModelDirectory ModelDirectory::open(const fs::path& path, QuantizedForm form) {
  std::error_code error;
  if (path.extension() == ".gguf" && !fs::is_directory(path, error)) {
    return open_gguf(path, form);
  }
  if (!fs::is_directory(path, error)) {
    fail(
        ErrorKind::NotFound,
        "[ModelDirectory] {}: {}, expected a model directory",
        path.string(),
        fs::exists(path, error) ? "not a directory" : "no such directory");
  }
  ModelDirectory result;
  result.path_ = path;
  const fs::path config = path / "config.json";
  if (!fs::exists(config)) {
    fail(
        ErrorKind::NotFound,
        "[ModelDirectory] {}: found no config.json, expected a Hugging Face "
        "or MLX model directory{}",
        path.string(),
        gguf_hint(path));
  }
  result.config_ = read_config(config);
  const fs::path generation = path / "generation_config.json";
  result.generation_config_ =
      fs::exists(generation) ? read_config(generation) : Json::object();
  for (const std::string& name : find_shards(path)) {
    const fs::path shard = path / name;
    SafetensorsFile file = SafetensorsFile::open(shard);
    for (std::size_t i = 0; i < file.tensors().size(); ++i) {
      const TensorInfo& tensor = file.tensors()[i];
      const auto place = std::pair(result.shards_.size(), i);
      if (!result.index_.emplace(tensor.name, place).second) {
        fail(
            ErrorKind::Corrupt,
            "[ModelDirectory] {}: tensor '{}' is also in another shard, "
            "expected it once. Is there a stray file beside the model's own?",
            shard.string(),
            tensor.name);
      }
      result.tensors_.push_back(tensor);
    }
    result.file_bytes_ += fs::file_size(shard);
    result.shards_.push_back(std::move(file));
  }
  return result;
}

ModelDirectory ModelDirectory::outline(
    std::function<bool(const std::string&)> keeps) const {
  ModelDirectory result = *this;
  result.is_outline_ = true;
  result.keeps_ = std::move(keeps);
  return result;
}

bool ModelDirectory::has(const std::string& name) const {
  return index_.contains(name);
}

const TensorInfo& ModelDirectory::info(const std::string& name) const {
  const auto found = index_.find(name);
  if (found == index_.end()) {
    fail(
        ErrorKind::NotFound,
        "[ModelDirectory::info] {}: has no tensor '{}'",
        path_.string(),
        name);
  }
  const auto [shard, place] = found->second;
  return gguf_ ? tensors_[place] : shards_[shard].tensors()[place];
}

mx::array ModelDirectory::load(const std::string& name) const {
  const TensorInfo& tensor = info(name);
  const auto [shard, place] = index_.at(name);
  return gguf_ ? gguf_->load(place) : shards_[shard].load(tensor);
}

void ModelDirectory::drop(const std::string& name) const {
  const TensorInfo& tensor = info(name);
  if (gguf_) {
    gguf_->drop(index_.at(name).second);
  } else {
    shards_[index_.at(name).first].drop(tensor);
  }
}

std::uint64_t ModelDirectory::loaded_bytes() const {
  std::uint64_t bytes = 0;
  for (const TensorInfo& tensor : tensors_) {
    std::uint64_t n = mx::size_of(tensor.dtype);
    for (const auto dim : tensor.shape) {
      n *= static_cast<std::uint64_t>(dim);
    }
    bytes += n;
  }
  return bytes;
}

const char* ModelDirectory::files_label() const {
  return gguf_ ? "GGUF file" : "model*.safetensors";
}

std::optional<std::string> ModelDirectory::side_file(
    const std::string& name) const {
  if (gguf_) {
    return gguf_->side_file(name);
  }
  const fs::path path = path_ / name;
  return fs::is_regular_file(path)
      ? std::optional(read_text_file(path, kMaxSideFileBytes))
      : std::nullopt;
}

std::string ModelDirectory::side_path(const std::string& name) const {
  return (path_ / name).string();
}

void ModelDirectory::copy_side_files(const fs::path& to) const {
  if (!gguf_) {
    io::copy_side_files(path_, to);
    return;
  }
  for (const std::string& name : side_file_globs()) {
    if (const auto text = gguf_->side_file(name)) {
      write_file_atomically(to / name, *text);
    }
  }
}

std::uint64_t ModelDirectory::side_file_bytes() const {
  std::uint64_t bytes = 0;
  if (gguf_) {
    for (const std::string& name : side_file_globs()) {
      bytes += gguf_->side_file(name).value_or("").size();
    }
    return bytes;
  }
  for (const std::string& name : side_file_names(path_)) {
    bytes += fs::file_size(path_ / name);
  }
  return bytes;
}

bool is_side_file(const std::string& name) {
  const auto is_it = [&](const std::string& glob) {
    return matches_glob(glob, name);
  };
  return std::any_of(side_file_globs().begin(), side_file_globs().end(), is_it);
}

void copy_side_files(const fs::path& from, const fs::path& to) {
  for (const std::string& name : side_file_names(from)) {
    const auto content = MappedFile::open(from / name);
    OutputFile copy(to / name, content->bytes().size());
    copy.write(content->bytes());
    copy.finish();
  }
}

} // namespace optiq::io
