// Keys under "tokenizer.ggml.":
//   bos_token_id, eos_token_id, unknown_token_id, padding_token_id
//   eot_token_id, eom_token_id    end of a turn, of a message
//   fim_pad_token_id, fim_rep_token_id, fim_sep_token_id
//                                 of filling in the middle: what fills up, the
//                                 next repository, the next file
//   add_bos_token, add_eos_token
//   suppress_tokens               ids
#include <algorithm>
#include <set>
#include <string>

#include "optiq/io/gguf/special_tokens_impl.h"
#include "optiq/io/gguf/tokenizer.h"
#include "optiq/io/gguf/vocabulary_impl.h"

namespace optiq::io {
namespace {

using artifacts::Json;

constexpr int kNone = -1;

/** What a tokenizer's model means by keys that are absent. llama.cpp takes 11,
 * Falcon's end of text, for BOS and EOS of every gpt2 tokenizer that names
 * none: an ordinary token of all others, so it is not done here. */
struct ModelRow {
  const char* model;
  int bos;
  int eos;
  int unk;
  int pad;
  bool add_bos;
  bool add_eos;
};

constexpr ModelRow kModels[] = {
    {"gpt2", kNone, kNone, kNone, kNone, false, false},
    {"llama", 1, 2, 0, kNone, true, false},
    {"t5", kNone, 1, 2, 0, false, true},
};

/** What a control token of a known spelling is for. */
enum class Role { End, FillPad, FillRepository, FillFile, FillText };

struct SpellingRow {
  std::string_view text;
  Role role;
};

// Those of llama.cpp.
constexpr SpellingRow kSpellings[] = {
    {"<|eot_id|>", Role::End},
    {"<|eom_id|>", Role::End},
    {"<|im_end|>", Role::End},
    {"<|end|>", Role::End},
    {"<|return|>", Role::End},
    {"<|call|>", Role::End},
    {"<|calls|>", Role::End},
    {"<|flush|>", Role::End},
    {"<end_of_turn>", Role::End},
    {"<end_of_utterance>", Role::End},
    {"<|endoftext|>", Role::End},
    {"<|end_of_text|>", Role::End},
    {"<\uff5cend\u2581of\u2581sentence\uff5c>", Role::End},
    {"</s>", Role::End},
    {"<eos>", Role::End},
    {"[EOS]", Role::End},
    {"<EOT>", Role::End},
    {"_<EOT>", Role::End},
    {"[EOT]", Role::End},
    {"<turn|>", Role::End},
    {"<|tool_response>", Role::End},
    {"[e~[", Role::End},
    {"<|fim_pad|>", Role::FillPad},
    {"<fim-pad>", Role::FillPad},
    {"<fim_pad>", Role::FillPad},
    {"<PAD>", Role::FillPad},
    {"[PAD]", Role::FillPad},
    {"<|fim_repo|>", Role::FillRepository},
    {"<|repo_name|>", Role::FillRepository},
    {"<fim-repo>", Role::FillRepository},
    {"<REPO>", Role::FillRepository},
    {"<reponame>", Role::FillRepository},
    {"<|file_sep|>", Role::FillFile},
    {"<|fim_prefix|>", Role::FillText},
    {"<|fim_suffix|>", Role::FillText},
    {"<|fim_middle|>", Role::FillText},
    {"<fim-prefix>", Role::FillText},
    {"<fim-suffix>", Role::FillText},
    {"<fim-middle>", Role::FillText},
    {"<fim_prefix>", Role::FillText},
    {"<fim_suffix>", Role::FillText},
    {"<fim_middle>", Role::FillText},
    {"<\uff5cfim\u2581begin\uff5c>", Role::FillText},
    {"<\uff5cfim\u2581hole\uff5c>", Role::FillText},
    {"<\uff5cfim\u2581end\uff5c>", Role::FillText},
    {"<PRE>", Role::FillText},
    {"<SUF>", Role::FillText},
    {"<MID>", Role::FillText},
    {"\u2581<PRE>", Role::FillText},
    {"\u2581<SUF>", Role::FillText},
    {"\u2581<MID>", Role::FillText},
    {"<|code_prefix|>", Role::FillText},
    {"<|code_suffix|>", Role::FillText},
    {"<|code_middle|>", Role::FillText},
    {"<|prefix|>", Role::FillText},
    {"<|suffix|>", Role::FillText},
    {"<|middle|>", Role::FillText},
};

const SpellingRow* find_spelling(std::string_view text) {
  // All begin with one of these: most of a vocabulary needs no search.
  if (text.find_first_of("<[_\xe2") != 0) {
    return nullptr;
  }
  const auto* const row = std::find_if(
      std::begin(kSpellings), std::end(kSpellings), [&](const auto& spelling) {
        return spelling.text == text;
      });
  return row == std::end(kSpellings) ? nullptr : row;
}

const ModelRow& model_row(const GgufFile& file) {
  const auto model = file.text(kTokenizerPrefix + "model");
  const auto* const row =
      std::find_if(std::begin(kModels), std::end(kModels), [&](const auto& r) {
        return model == r.model;
      });
  // The tokenizer's reader refuses a model that is not known.
  return row == std::end(kModels) ? kModels[0] : *row;
}

/** The id at a key, else `otherwise`; nothing when it is none of the
 * vocabulary. */
std::optional<std::uint32_t> id_at(
    const GgufFile& file,
    const char* key,
    std::size_t n_tokens,
    int otherwise = kNone) {
  const auto is_token = [&](std::uint64_t id) { return id < n_tokens; };
  const auto id = file.integer(kTokenizerPrefix + key);
  if (id && is_token(*id)) {
    return static_cast<std::uint32_t>(*id);
  }
  if (otherwise != kNone && is_token(static_cast<std::uint64_t>(otherwise))) {
    return static_cast<std::uint32_t>(otherwise);
  }
  return std::nullopt;
}

/** Two spellings that end an answer elsewhere, but not where their models use
 * others: harmony's <|end|> ends a message of several, Gemma 4's </s> is text.
 */
void drop_false_ends(
    const std::vector<std::string_view>& tokens,
    std::set<std::uint32_t>& ends) {
  const auto find = [&](std::string_view text) {
    return std::find_if(ends.begin(), ends.end(), [&](std::uint32_t id) {
      return tokens[id] == text;
    });
  };
  const auto has = [&](std::string_view text) {
    return find(text) != ends.end();
  };
  const bool has_calls = has("<|call|>") || has("<|calls|>");
  if (has_calls && (has("<|return|>") || has("<|flush|>")) && has("<|end|>")) {
    ends.erase(find("<|end|>"));
  }
  if (has("<|tool_response>") && has("</s>")) {
    ends.erase(find("</s>"));
  }
}

std::vector<std::uint32_t> find_ends(
    const GgufFile& file,
    const std::vector<std::string_view>& tokens,
    std::optional<std::uint32_t> eos) {
  const auto key = [&](const char* name) {
    return id_at(file, name, tokens.size());
  };
  const auto fill_pad = key("fim_pad_token_id");
  const auto fill_repository = key("fim_rep_token_id");
  const auto fill_file = key("fim_sep_token_id");
  std::set<std::uint32_t> ends;
  for (const auto& id :
       {eos,
        key("eot_token_id"),
        key("eom_token_id"),
        fill_pad,
        fill_repository,
        fill_file}) {
    if (id) {
      ends.insert(*id);
    }
  }
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    const SpellingRow* const row = find_spelling(tokens[id]);
    if (row != nullptr &&
        (row->role == Role::End || (row->role == Role::FillPad && !fill_pad) ||
         (row->role == Role::FillRepository && !fill_repository) ||
         (row->role == Role::FillFile && !fill_file))) {
      ends.insert(static_cast<std::uint32_t>(id));
    }
  }
  drop_false_ends(tokens, ends);
  return {ends.begin(), ends.end()};
}

std::vector<std::string_view> texts_of_tokens(const GgufFile& file) {
  return file.texts(kTokenizerPrefix + "tokens")
      .value_or(std::vector<std::string_view>{});
}

} // namespace

GgufSpecialTokens read_special_tokens(const GgufFile& file) {
  const auto tokens = texts_of_tokens(file);
  const ModelRow& row = model_row(file);
  const std::size_t n = tokens.size();
  GgufSpecialTokens special{
      .bos = id_at(file, "bos_token_id", n, row.bos),
      .eos = id_at(file, "eos_token_id", n, row.eos),
      .unk = id_at(file, "unknown_token_id", n, row.unk),
      .pad = id_at(file, "padding_token_id", n, row.pad),
      .ends = {},
      .suppressed = {}};
  special.ends = find_ends(file, tokens, special.eos);
  for (const std::int64_t id :
       file.integers(kTokenizerPrefix + "suppress_tokens")
           .value_or(std::vector<std::int64_t>{})) {
    if (id >= 0 && static_cast<std::size_t>(id) < n) {
      special.suppressed.push_back(static_cast<std::uint32_t>(id));
    }
  }
  return special;
}

bool is_control_spelling(std::string_view spelling) {
  return find_spelling(spelling) != nullptr;
}

void add_token_ids(const GgufFile& file, Json& config) {
  const GgufSpecialTokens special = read_special_tokens(file);
  for (const auto& [name, id] :
       {std::pair{"bos_token_id", special.bos},
        std::pair{"eos_token_id", special.eos},
        std::pair{"pad_token_id", special.pad}}) {
    if (id) {
      config[name] = *id;
    }
  }
}

Json special_token_frame(
    const GgufFile& file,
    bool default_bos,
    Json otherwise) {
  const auto tokens = texts_of_tokens(file);
  const GgufSpecialTokens ids = read_special_tokens(file);
  const ModelRow& row = model_row(file);
  Json before = Json::array();
  Json after = Json::array();
  Json special = Json::object();
  const auto add = [&](const char* flag,
                       bool fallback,
                       std::optional<std::uint32_t> id,
                       Json& side) {
    if (!id || !file.boolean(kTokenizerPrefix + flag).value_or(fallback)) {
      return;
    }
    const auto spelling = std::string(tokens[*id]);
    side.push_back(spelling);
    special[spelling] = {
        {"id", spelling},
        {"ids", Json::array({*id})},
        {"tokens", Json::array({spelling})}};
  };
  add("add_bos_token", default_bos || row.add_bos, ids.bos, before);
  add("add_eos_token", row.add_eos, ids.eos, after);
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

Json gguf_generation_config(const GgufFile& file) {
  const GgufSpecialTokens special = read_special_tokens(file);
  Json config = Json::object();
  add_token_ids(file, config);
  if (!special.ends.empty()) {
    config["eos_token_id"] = special.ends;
  }
  if (!special.suppressed.empty()) {
    config["suppress_tokens"] = special.suppressed;
  }
  return config;
}

Json gguf_tokenizer_config(const GgufFile& file) {
  const auto tokens = texts_of_tokens(file);
  const GgufSpecialTokens special = read_special_tokens(file);
  // Reads tokenizer.json as it is; the classes of families build their own.
  Json config = {
      {"tokenizer_class", "PreTrainedTokenizerFast"},
      {"clean_up_tokenization_spaces", false}};
  for (const auto& [name, id] :
       {std::pair{"bos_token", special.bos},
        std::pair{"eos_token", special.eos},
        std::pair{"unk_token", special.unk},
        std::pair{"pad_token", special.pad}}) {
    if (id) {
      config[name] = std::string(tokens[*id]);
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
