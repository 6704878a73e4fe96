#include "optiq/io/weight_files.h"

#include <algorithm>
#include <charconv>
#include <set>
#include <string_view>

#include "optiq/artifacts/json.h"
#include "optiq/base/error.h"

namespace optiq::io {
namespace {

namespace fs = std::filesystem;
using artifacts::Json;

constexpr const char* kWholeName = "model.safetensors";
// Vision and audio towers that the Python original keeps beside the model: in
// its index, but no part of the text model.
constexpr const char* kVisionName = "optiq_vision.safetensors";

/** Whether text names an entry of a folder: no way up, down or out of it. */
bool is_file_name(const std::string& text) {
  return text.find_first_of(std::string_view("/\0", 2)) == std::string::npos &&
      !text.empty() && text != "." && text != "..";
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/** Takes a number and the text behind it off the front. */
std::optional<int> take_number(std::string_view& text, std::string_view end) {
  int value = 0;
  const auto [next, error] =
      std::from_chars(text.data(), text.data() + text.size(), value);
  text.remove_prefix(static_cast<std::size_t>(next - text.data()));
  if (error != std::errc() || !text.starts_with(end)) {
    return std::nullopt;
  }
  text.remove_prefix(end.size());
  return value;
}

/** N of "model-<i>-of-<N>.safetensors"; nothing for other names. */
std::optional<int> set_size(std::string_view name) {
  constexpr std::string_view kPrefix = "model-";
  if (!name.starts_with(kPrefix)) {
    return std::nullopt;
  }
  name.remove_prefix(kPrefix.size());
  const auto index = take_number(name, "-of-");
  const auto size = index ? take_number(name, ".safetensors") : std::nullopt;
  const bool is_shard =
      size && name.empty() && *index >= 1 && *index <= *size && *size < 100'000;
  return is_shard ? size : std::nullopt;
}

/** "model.fp16.safetensors": a variant, read only by those who name it. */
bool is_variant(const std::string& name) {
  return name.starts_with("model.") && name != kWholeName;
}

/** The files of the set that one of them belongs to, numbered as it is. */
std::vector<std::string> whole_set(const std::string& shard, int size) {
  const std::size_t digits = shard.find("-of-") - std::string("model-").size();
  std::vector<std::string> names;
  for (int i = 1; i <= size; ++i) {
    names.push_back(fmt::format(
        "model-{:0{}}{}", i, digits, shard.substr(shard.find("-of-"))));
  }
  return names;
}

/** Without an index, or beside a stale one. */
std::vector<std::string> choose_by_name(
    const std::vector<std::string>& present) {
  const bool has_whole = contains(present, kWholeName);
  std::set<std::string> names;
  for (const std::string& name : present) {
    const auto size = set_size(name);
    if (has_whole && (size || is_variant(name))) {
      continue; // the same weights again
    }
    names.insert(name);
    if (size) {
      const std::vector<std::string> set = whole_set(name, *size);
      names.insert(set.begin(), set.end());
    }
  }
  return {names.begin(), names.end()};
}

/** model*.safetensors, sorted. */
std::vector<std::string> weight_files_of(const fs::path& directory) {
  std::vector<std::string> names;
  std::error_code error; // an unreadable folder has no files
  for (const fs::directory_entry& entry :
       fs::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename().string();
    if (is_weight_file(name) && entry.is_regular_file(error)) {
      names.push_back(name);
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

} // namespace

bool is_weight_file(const std::string& name) {
  return name.starts_with("model") && name.ends_with(".safetensors") &&
      name.find('/') == std::string::npos;
}

std::vector<std::string> shard_names(const fs::path& index) {
  const std::string where = index.string();
  const Json json = artifacts::read_json_file(index, artifacts::kListJson);
  const Json& weight_map =
      artifacts::required_object(json, "weight_map", where);
  std::set<std::string> names;
  for (const auto& [tensor, file] : weight_map.items()) {
    if (!file.is_string() || !is_file_name(file.get<std::string>())) {
      fail(
          ErrorKind::Corrupt,
          "[ModelDirectory] {}: tensor '{}' is in {}, expected the name of a "
          "file beside the index",
          where,
          tensor,
          artifacts::describe(file));
    }
    names.insert(file.get<std::string>());
  }
  names.erase(kVisionName);
  return {names.begin(), names.end()};
}

std::vector<std::string> choose_weight_files(
    const std::vector<std::string>& present,
    const std::optional<std::vector<std::string>>& indexed) {
  const auto is_present = [&](const std::string& name) {
    return contains(present, name);
  };
  if (!indexed || (is_present(kWholeName) && !contains(*indexed, kWholeName))) {
    return choose_by_name(present);
  }
  if (std::none_of(indexed->begin(), indexed->end(), is_present)) {
    std::vector<std::string> names = choose_by_name(present);
    if (!names.empty() && std::all_of(names.begin(), names.end(), is_present)) {
      return names;
    }
  }
  return *indexed;
}

std::vector<std::string> choose_weight_files(
    const std::vector<std::string>& present,
    const fs::path& index) {
  std::error_code error; // no such file
  if (!fs::is_regular_file(index, error)) {
    return choose_weight_files(present, std::nullopt);
  }
  try {
    return choose_weight_files(present, shard_names(index));
  } catch (const Error&) {
    if (!contains(present, kWholeName)) {
      throw; // what is whole needs no index
    }
  }
  return choose_weight_files(present, std::nullopt);
}

WeightFiles find_weight_files(const fs::path& directory) {
  WeightFiles files{
      .names = choose_weight_files(
          weight_files_of(directory), directory / kWeightIndexName)};
  for (const std::string& name : files.names) {
    std::error_code error; // no such file
    if (!fs::is_regular_file(directory / name, error)) {
      files.missing.push_back(name);
    }
  }
  return files;
}

} // namespace optiq::io
