// Writes the format that safetensors.cpp describes. Tensors keep the given
// order in header and data; the header is padded with spaces to 8 bytes.
#include <filesystem>
#include <set>

#include "optiq/artifacts/json.h"
#include "optiq/artifacts/size.h"
#include "optiq/base/error.h"
#include "optiq/base/output_file.h"
#include "optiq/io/array.h"
#include "optiq/io/safetensors.h"
#include "optiq/io/safetensors_impl.h"
#include "optiq/io/weight_files.h"

namespace optiq::io {
namespace {

namespace fs = std::filesystem;
using artifacts::Json;

constexpr std::uint64_t kHeaderAlignment = 8;
const std::map<std::string, std::string> kModelMetadata = {{"format", "mlx"}};

std::uint64_t data_bytes(const TensorToWrite& tensor) {
  std::uint64_t bytes = mx::size_of(tensor.dtype);
  for (const auto dim : tensor.shape) {
    bytes *= static_cast<std::uint64_t>(dim);
  }
  return bytes;
}

std::uint64_t data_bytes(const std::vector<TensorToWrite>& tensors) {
  std::uint64_t bytes = 0;
  for (const TensorToWrite& tensor : tensors) {
    bytes += data_bytes(tensor);
  }
  return bytes;
}

/** The length field and the padded JSON. */
std::string make_header(
    const std::vector<TensorToWrite>& tensors,
    const std::map<std::string, std::string>& metadata) {
  // Built as text: ordered_json would search all earlier keys for each new one.
  std::string json = "{";
  if (!metadata.empty()) {
    json += fmt::format("\"{}\":{},", kMetadataKey, Json(metadata).dump());
  }
  std::uint64_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    const std::uint64_t end = offset + data_bytes(tensor);
    const Json entry = {
        {"dtype", dtype_name(tensor.dtype)},
        {"shape", std::vector<int>(tensor.shape.begin(), tensor.shape.end())},
        {"data_offsets", {offset, end}}};
    json += fmt::format("{}:{},", Json(tensor.name).dump(), entry.dump());
    offset = end;
  }
  if (json.back() == ',') {
    json.pop_back();
  }
  json += '}';
  json.resize(
      (json.size() + kHeaderAlignment - 1) / kHeaderAlignment *
          kHeaderAlignment,
      ' ');
  const std::uint64_t length = json.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) +
      json;
}

void refuse_bad_names(
    const fs::path& path,
    const std::vector<TensorToWrite>& tensors) {
  std::set<std::string_view> names{kMetadataKey};
  for (const TensorToWrite& tensor : tensors) {
    if (!names.insert(tensor.name).second) {
      fail(
          ErrorKind::InvalidInput,
          "[write_safetensors] {}: found tensor '{}' twice or reserved, "
          "expected distinct names",
          path.string(),
          tensor.name);
    }
  }
}

/** Better refused now than after an hour of quantizing. */
void require_disk(const fs::path& path, std::uint64_t needed) {
  const std::uint64_t available = free_disk_bytes(path);
  if (needed > available) {
    fail(
        ErrorKind::Exhausted,
        "[write_safetensors] {}: needs {} bytes ({}), the disk has {} free. "
        "Free some space or write to another disk",
        path.string(),
        needed,
        artifacts::format_size(needed),
        artifacts::format_size(available));
  }
}

void write_tensor(OutputFile& file, const TensorToWrite& tensor) {
  const mx::array made = materialize(tensor.make());
  if (made.dtype() != tensor.dtype || made.shape() != tensor.shape) {
    fail(
        ErrorKind::InvalidInput,
        "[write_safetensors] tensor '{}': found {} {}, expected {} {}",
        tensor.name,
        dtype_name(made.dtype()),
        shape_text(made.shape()),
        dtype_name(tensor.dtype),
        shape_text(tensor.shape));
  }
  file.write(std::as_bytes(std::span(made.data<char>(), made.nbytes())));
}

/** Consecutive tensors into shards of at most `max_bytes`, or of one tensor. */
std::vector<std::vector<TensorToWrite>> split_into_shards(
    const std::vector<TensorToWrite>& tensors,
    std::uint64_t max_bytes) {
  std::vector<std::vector<TensorToWrite>> shards(1);
  std::uint64_t used = 0;
  for (const TensorToWrite& tensor : tensors) {
    const std::uint64_t bytes = data_bytes(tensor);
    if (!shards.back().empty() && used + bytes > max_bytes) {
      shards.emplace_back();
      used = 0;
    }
    shards.back().push_back(tensor);
    used += bytes;
  }
  return shards;
}

std::string shard_name(std::size_t index, std::size_t count) {
  return count == 1
      ? "model.safetensors"
      : fmt::format("model-{:05}-of-{:05}.safetensors", index + 1, count);
}

} // namespace

std::uint64_t safetensors_bytes(
    const std::vector<TensorToWrite>& tensors,
    const std::map<std::string, std::string>& metadata) {
  return make_header(tensors, metadata).size() + data_bytes(tensors);
}

void write_safetensors(
    const fs::path& path,
    const std::vector<TensorToWrite>& tensors,
    const std::map<std::string, std::string>& metadata) {
  refuse_bad_names(path, tensors);
  const std::string header = make_header(tensors, metadata);
  const std::uint64_t bytes = header.size() + data_bytes(tensors);
  require_disk(path, bytes);
  OutputFile file(path, bytes);
  file.write(header);
  for (const TensorToWrite& tensor : tensors) {
    write_tensor(file, tensor);
  }
  file.finish();
}

std::uint64_t model_shards_bytes(
    const std::vector<TensorToWrite>& tensors,
    std::uint64_t max_shard_bytes) {
  std::uint64_t bytes = 0;
  for (const auto& shard : split_into_shards(tensors, max_shard_bytes)) {
    bytes += safetensors_bytes(shard, kModelMetadata);
  }
  return bytes;
}

std::string make_weight_index(
    const std::vector<TensorToWrite>& tensors,
    std::uint64_t total_parameters,
    std::uint64_t max_shard_bytes) {
  const auto shards = split_into_shards(tensors, max_shard_bytes);
  std::map<std::string, std::string> weight_map;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    for (const TensorToWrite& tensor : shards[i]) {
      weight_map.emplace(tensor.name, shard_name(i, shards.size()));
    }
  }
  const Json index = {
      {"metadata",
       {{"total_size", data_bytes(tensors)},
        {"total_parameters", total_parameters}}},
      {"weight_map", weight_map}};
  return artifacts::dump_json(index, 4);
}

std::uint64_t write_model_shards(
    const fs::path& directory,
    const std::vector<TensorToWrite>& tensors,
    std::uint64_t total_parameters,
    std::uint64_t max_shard_bytes) {
  const auto shards = split_into_shards(tensors, max_shard_bytes);
  const std::uint64_t file_bytes = model_shards_bytes(tensors, max_shard_bytes);
  require_disk(directory, file_bytes);
  refuse_bad_names(directory, tensors); // those of all shards
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const fs::path path = directory / shard_name(i, shards.size());
    write_safetensors(path, shards[i], kModelMetadata);
  }
  write_file_atomically(
      directory / kWeightIndexName,
      make_weight_index(tensors, total_parameters, max_shard_bytes));
  return file_bytes;
}

} // namespace optiq::io
