#include "optiq/generate/defaults.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>

#include "optiq/base/error.h"
#include "optiq/text/side_files.h"
#include "optiq/text/special_tokens.h"

namespace optiq::generate {
namespace {

using artifacts::Json;

text::SideFiles side_files(const io::ModelDirectory& directory) {
  return [&directory](const char* name) { return directory.side_file(name); };
}

text::SpecialTokens special_tokens(const io::ModelDirectory& directory) {
  return text::SpecialTokens::read(side_files(directory), directory.path());
}

/** The tokenizer's own end, where tokenizer_config.json names one. The older
 * special_tokens_map.json alone ends no answer in transformers either. */
std::optional<std::string> eos_token(const io::ModelDirectory& directory) {
  constexpr const char* kKey = "eos_token";
  const Json config = text::read_side_object(
      side_files(directory), directory.path(), "tokenizer_config.json");
  const auto named = config.find(kKey);
  return named == config.end() || named->is_null()
      ? std::nullopt
      : special_tokens(directory).text_of(kKey);
}

/** eos_token_id of a config: an id, a list of them, or nothing. */
std::vector<std::int32_t> end_ids(
    const Json& config,
    const std::string& where) {
  constexpr const char* kKey = "eos_token_id";
  const auto entry = config.find(kKey);
  if (entry == config.end() || entry->is_null()) {
    return {};
  }
  if (entry->is_array()) {
    return artifacts::required<std::vector<std::int32_t>>(config, kKey, where);
  }
  return {artifacts::required<std::int32_t>(config, kKey, where)};
}

/** The part of config.json that describes the language model. */
const Json& text_config(const Json& config) {
  const auto text = config.find("text_config");
  return text != config.end() && text->is_object() ? *text : config;
}

/** Those of config.json, at its top or in its text_config. */
std::vector<std::int32_t> end_ids_of_model(
    const Json& config,
    const std::string& where) {
  const auto ids = end_ids(config, where);
  return ids.empty() ? end_ids(text_config(config), where) : ids;
}

} // namespace

std::shared_ptr<const text::Tokenizer> load_tokenizer(
    const io::ModelDirectory& directory) {
  constexpr const char* kName = "tokenizer.json";
  constexpr const char* kSentencePieceName = "tokenizer.model";
  if (const auto json = directory.side_file(kName)) {
    const auto special = special_tokens(directory);
    return text::Tokenizer::parse(*json, directory.side_path(kName), &special);
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
      side_files(directory), directory.path());
}

std::vector<std::int32_t> encode_prompt(
    const io::ModelDirectory& directory,
    const text::Tokenizer& tokenizer,
    const Prompt& prompt) {
  if (prompt.raw) {
    if (prompt.system) {
      fail(
          ErrorKind::InvalidInput,
          "[encode_prompt] {}: found a system message with a raw prompt, which "
          "has no messages. Leave one of them out",
          directory.path().string());
    }
    return tokenizer.encode(prompt.text, true);
  }
  Json messages = Json::array();
  if (prompt.system) {
    messages.push_back({{"role", "system"}, {"content", *prompt.system}});
  }
  messages.push_back({{"role", "user"}, {"content", prompt.text}});
  return tokenizer.encode(
      load_chat_template(directory).render_chat(messages, true), false);
}

std::optional<std::int32_t> end_of_text(
    const io::ModelDirectory& directory,
    const text::Tokenizer& tokenizer) {
  const auto eos = eos_token(directory);
  return eos ? tokenizer.token_to_id(*eos) : std::nullopt;
}

std::vector<std::int32_t> stop_ids(
    const io::ModelDirectory& directory,
    const text::Tokenizer& tokenizer) {
  const Json& config = directory.config();
  const std::string where = directory.side_path("config.json");
  std::vector<std::int32_t> ids = end_ids(
      directory.generation_config(),
      directory.side_path("generation_config.json"));
  const bool others_count = ids.empty();
  for (const std::int32_t id : end_ids_of_model(config, where)) {
    if (others_count || tokenizer.is_special(id)) {
      ids.push_back(id);
    }
  }
  if (const auto eos = end_of_text(directory, tokenizer)) {
    ids.push_back(*eos);
  }
  const auto rows = artifacts::optional_or<std::int32_t>(
      text_config(config),
      "vocab_size",
      where,
      std::numeric_limits<std::int32_t>::max());
  std::erase_if(ids, [&](std::int32_t id) { return id < 0 || id >= rows; });
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

} // namespace optiq::generate
