#include "optiq/generate/defaults.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>

namespace optiq::generate {
namespace {

using artifacts::Json;

void add_ids(
    const Json& config,
    const std::string& where,
    std::vector<std::int32_t>& ids) {
  const auto entry = config.find("eos_token_id");
  if (entry == config.end() || entry->is_null()) {
    return;
  }
  if (entry->is_array()) {
    for (const int id :
         artifacts::required<std::vector<int>>(config, "eos_token_id", where)) {
      ids.push_back(id);
    }
  } else {
    ids.push_back(artifacts::required<int>(config, "eos_token_id", where));
  }
}

/** eos_token of tokenizer_config.json: a string, or an object's "content". */
std::optional<std::string> eos_token(const std::filesystem::path& directory) {
  const auto path = directory / "tokenizer_config.json";
  if (!std::filesystem::exists(path)) {
    return std::nullopt;
  }
  const Json config = artifacts::read_json_file(path);
  const auto entry = config.find("eos_token");
  if (entry == config.end()) {
    return std::nullopt;
  }
  if (entry->is_string()) {
    return entry->get<std::string>();
  }
  if (entry->is_object() && entry->contains("content")) {
    return artifacts::required<std::string>(*entry, "content", path.string());
  }
  return std::nullopt;
}

} // namespace

SamplerOptions default_sampler(const io::ModelDirectory& directory) {
  const Json& config = directory.generation_config();
  const std::string where =
      (directory.path() / "generation_config.json").string();
  SamplerOptions sampler;
  if (!artifacts::optional_or<bool>(config, "do_sample", where, false)) {
    return sampler;
  }
  const auto number = [&](const char* key, double fallback) {
    return static_cast<float>(
        artifacts::optional_or<double>(config, key, where, fallback));
  };
  sampler.temperature = number("temperature", 1.0);
  sampler.top_p = number("top_p", 1.0);
  sampler.min_p = number("min_p", 0.0);
  sampler.top_k = artifacts::optional_or<int>(config, "top_k", where, 0);
  return sampler;
}

std::vector<std::int32_t> stop_ids(
    const io::ModelDirectory& directory,
    const text::Tokenizer& tokenizer) {
  std::vector<std::int32_t> ids;
  add_ids(
      directory.generation_config(),
      (directory.path() / "generation_config.json").string(),
      ids);
  if (ids.empty()) {
    const std::string where = (directory.path() / "config.json").string();
    add_ids(directory.config(), where, ids);
    const auto text = directory.config().find("text_config");
    if (ids.empty() && text != directory.config().end()) {
      add_ids(*text, where, ids);
    }
  }
  if (const auto token = eos_token(directory.path())) {
    if (const auto id = tokenizer.token_to_id(*token)) {
      ids.push_back(*id);
    }
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

} // namespace optiq::generate
