#include <initializer_list>
#include <string>

#include "optiq/io/gguf_special_tokens_impl.h"
#include "optiq/io/gguf_tokenizer.h"

namespace optiq::io {

using artifacts::Json;

std::optional<std::size_t> token_id(
    const GgufFile& file,
    const char* key,
    const GgufVocabulary& vocabulary) {
  const auto id = file.integer(kTokenizerPrefix + key);
  if (id && *id >= vocabulary.spellings.size()) {
    reject_key(
        ErrorKind::Corrupt,
        file,
        key,
        "found {}, expected the id of one of {} tokens",
        *id,
        vocabulary.spellings.size());
  }
  return id;
}

Json special_token_frame(
    const GgufFile& file,
    const GgufVocabulary& vocabulary,
    bool default_bos,
    Json otherwise) {
  Json before = Json::array();
  Json after = Json::array();
  Json special = Json::object();
  const auto add =
      [&](const char* flag, bool fallback, const char* key, Json& side) {
        if (!file.boolean(kTokenizerPrefix + flag).value_or(fallback)) {
          return;
        }
        const auto id =
            required_key(file, key, token_id(file, key, vocabulary));
        const auto spelling = std::string(vocabulary.spellings[id]);
        side.push_back(spelling);
        special[spelling] = {
            {"id", spelling},
            {"ids", Json::array({id})},
            {"tokens", Json::array({spelling})}};
      };
  add("add_bos_token", default_bos, "bos_token_id", before);
  add("add_eos_token", false, "eos_token_id", after);
  if (special.empty()) {
    return otherwise;
  }
  const auto frame = [&](std::initializer_list<const char*> sequences) {
    Json parts = Json::array();
    int type_id = 0;
    for (const char* sequence : sequences) {
      for (const Json& token : before) {
        parts.push_back(
            {{"SpecialToken", {{"id", token}, {"type_id", type_id}}}});
      }
      parts.push_back({{"Sequence", {{"id", sequence}, {"type_id", type_id}}}});
      for (const Json& token : after) {
        parts.push_back(
            {{"SpecialToken", {{"id", token}, {"type_id", type_id}}}});
      }
      ++type_id;
    }
    return parts;
  };
  return {
      {"type", "TemplateProcessing"},
      {"single", frame({"A"})},
      {"pair", frame({"A", "B"})},
      {"special_tokens", special}};
}

Json gguf_tokenizer_config(const GgufFile& file) {
  const GgufVocabulary vocabulary = read_vocabulary(file);
  // Reads tokenizer.json as it is; the classes of families build their own.
  Json config = {
      {"tokenizer_class", "PreTrainedTokenizerFast"},
      {"clean_up_tokenization_spaces", false}};
  for (const auto& [key, name] :
       {std::pair{"bos_token_id", "bos_token"},
        std::pair{"eos_token_id", "eos_token"},
        std::pair{"unknown_token_id", "unk_token"},
        std::pair{"padding_token_id", "pad_token"}}) {
    if (const auto id = token_id(file, key, vocabulary)) {
      config[name] = std::string(vocabulary.spellings[*id]);
    }
  }
  constexpr std::string_view kTemplate = "tokenizer.chat_template";
  Json named = Json::array();
  for (const std::string& key : file.keys(std::string(kTemplate) + ".")) {
    named.push_back(
        {{"name", key.substr(kTemplate.size() + 1)},
         {"template", file.text(key).value()}});
  }
  if (const auto chat = file.text(std::string(kTemplate))) {
    if (named.empty()) {
      config["chat_template"] = *chat;
    } else {
      named.insert(
          named.begin(), Json{{"name", "default"}, {"template", *chat}});
      config["chat_template"] = named;
    }
  }
  return config;
}

} // namespace optiq::io
