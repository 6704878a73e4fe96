#include "optiq/generate/defaults.h"

#include <algorithm>
#include <optional>
#include <string>

#include "optiq/base/error.h"

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
std::optional<std::string> eos_token(const io::ModelDirectory& directory) {
  constexpr const char* kName = "tokenizer_config.json";
  const auto text = directory.side_file(kName);
  if (!text) {
    return std::nullopt;
  }
  const std::string where = directory.side_path(kName);
  const Json config = artifacts::parse_json(*text, where);
  const auto entry = config.find("eos_token");
  if (entry == config.end()) {
    return std::nullopt;
  }
  if (entry->is_string()) {
    return entry->get<std::string>();
  }
  if (entry->is_object() && entry->contains("content")) {
    return artifacts::required<std::string>(*entry, "content", where);
  }
  return std::nullopt;
}

} // namespace

std::shared_ptr<const text::Tokenizer> load_tokenizer(
    const io::ModelDirectory& directory) {
  constexpr const char* kName = "tokenizer.json";
  constexpr const char* kSentencePieceName = "tokenizer.model";
  if (const auto json = directory.side_file(kName)) {
    return text::Tokenizer::parse(*json, directory.side_path(kName));
  }
  if (const auto model = directory.side_file(kSentencePieceName)) {
    return text::Tokenizer::parse_sentencepiece(
        *model, directory.side_file("tokenizer_config.json"), directory.path());
  }
  fail(
      ErrorKind::NotFound,
      "[load_tokenizer] {}: found neither {} nor {}, expected the model's "
      "tokenizer. Incomplete download?",
      directory.path().string(),
      kName,
      kSentencePieceName);
}

text::ChatTemplate load_chat_template(const io::ModelDirectory& directory) {
  return text::ChatTemplate::from_files(
      directory.side_file("chat_template.jinja"),
      directory.side_file("tokenizer_config.json"),
      directory.path());
}

SamplerOptions default_sampler(const io::ModelDirectory& directory) {
  const Json& config = directory.generation_config();
  const std::string where = directory.side_path("generation_config.json");
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
      directory.side_path("generation_config.json"),
      ids);
  if (ids.empty()) {
    const std::string where = directory.side_path("config.json");
    add_ids(directory.config(), where, ids);
    const auto text = directory.config().find("text_config");
    if (ids.empty() && text != directory.config().end()) {
      add_ids(*text, where, ids);
    }
  }
  if (const auto token = eos_token(directory)) {
    if (const auto id = tokenizer.token_to_id(*token)) {
      ids.push_back(*id);
    }
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

} // namespace optiq::generate
