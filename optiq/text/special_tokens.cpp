#include "optiq/text/special_tokens.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>
#include <unordered_map>

#include "optiq/base/error.h"

namespace optiq::text {
namespace {

using artifacts::Json;

constexpr std::string_view kRoleSuffix = "_token";
constexpr const char* kRoles[] = {
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
};

/** Roles that a tokenizer_class of transformers fills where the files are
 * silent. */
struct ClassRow {
  const char* name; // without "Fast"
  const char* role;
  const char* text;
};

constexpr ClassRow kClasses[] = {
    {"LlamaTokenizer", "bos_token", "<s>"},
    {"LlamaTokenizer", "eos_token", "</s>"},
    {"LlamaTokenizer", "unk_token", "<unk>"},
    {"GemmaTokenizer", "bos_token", "<bos>"},
    {"GemmaTokenizer", "eos_token", "<eos>"},
    {"GemmaTokenizer", "unk_token", "<unk>"},
    {"GemmaTokenizer", "pad_token", "<pad>"},
    {"GemmaTokenizer", "mask_token", "<mask>"},
    {"Qwen2Tokenizer", "eos_token", "<|endoftext|>"},
    {"Qwen2Tokenizer", "unk_token", "<|endoftext|>"},
    {"Qwen2Tokenizer", "pad_token", "<|endoftext|>"},
    {"Qwen3_5Tokenizer", "eos_token", "<|endoftext|>"},
    {"Qwen3_5Tokenizer", "unk_token", "<|endoftext|>"},
    {"Qwen3_5Tokenizer", "pad_token", "<|endoftext|>"},
    {"GPT2Tokenizer", "bos_token", "<|endoftext|>"},
    {"GPT2Tokenizer", "eos_token", "<|endoftext|>"},
    {"GPT2Tokenizer", "unk_token", "<|endoftext|>"},
    {"GPTNeoXTokenizer", "bos_token", "<|endoftext|>"},
    {"GPTNeoXTokenizer", "eos_token", "<|endoftext|>"},
    {"GPTNeoXTokenizer", "unk_token", "<|endoftext|>"},
    {"GPTNeoXTokenizer", "pad_token", "<|padding|>"},
    {"CohereTokenizer", "bos_token", "<BOS_TOKEN>"},
    {"CohereTokenizer", "eos_token", "<|END_OF_TURN_TOKEN|>"},
    {"CohereTokenizer", "unk_token", "<UNK>"},
    {"CohereTokenizer", "pad_token", "<PAD>"},
    {"CohereTokenizer", "cls_token", "<CLS>"},
    {"CohereTokenizer", "sep_token", "<SEP>"},
    {"CohereTokenizer", "mask_token", "<MASK_TOKEN>"},
};

constexpr const char* kExtra = "extra_special_tokens";
constexpr const char* kExtraFormerly = "additional_special_tokens";
constexpr const char* kListed = "added_tokens_decoder";
bool is_role(const std::string& key) {
  return std::find(std::begin(kRoles), std::end(kRoles), key) !=
      std::end(kRoles);
}

bool is_token(const Json& value) {
  return value.is_string() ||
      (value.is_object() && value.contains("content") &&
       value["content"].is_string());
}

/** Text, or {"content": "<s>", "lstrip": false, ...}, as a token with all its
 * flags. What is `special` whatever its flag says is told by the caller. */
Json make_token(const Json& value, bool special, const std::string& where) {
  if (!is_token(value)) {
    fail(
        ErrorKind::Corrupt,
        "[SpecialTokens::read] {}: found {}, expected a token: text, or an "
        "object with \"content\"",
        where,
        artifacts::describe(value));
  }
  const Json& from = value.is_string() ? Json::object() : value;
  const auto flag = [&](const char* name, bool fallback) {
    return artifacts::optional_or<bool>(from, name, where, fallback);
  };
  special = special || flag("special", false);
  return {
      {"content", value.is_string() ? value : value["content"]},
      {"single_word", flag("single_word", false)},
      {"lstrip", flag("lstrip", false)},
      {"rstrip", flag("rstrip", false)},
      {"normalized", flag("normalized", !special)},
      {"special", special}};
}

/** What the files say, gathered in their order. */
class Gatherer {
 public:
  Gatherer(const SideFiles& files, const std::filesystem::path& where)
      : files_(files), where_(where) {
    config_ = read("tokenizer_config.json");
    if (config_.contains(kExtraFormerly) && is_empty(config_, kExtra)) {
      config_[kExtra] = config_[kExtraFormerly];
      config_.erase(kExtraFormerly);
    }
    if (!lists_tokens()) {
      map_ = read("special_tokens_map.json");
    }
  }

  bool lists_tokens() const {
    return config_.contains(kListed);
  }

  /** Tokens by role. */
  Json roles() const {
    Json roles = Json::object();
    for (const char* role : kRoles) {
      const Json& file = map_.contains(role) ? map_ : config_;
      const auto found = file.find(role);
      if (found != file.end() && !found->is_null()) {
        roles[role] = make_token(*found, true, path_of(file, role));
      }
    }
    for (const ClassRow& row : kClasses) {
      if (!map_.contains(row.role) && !config_.contains(row.role) &&
          is_class(row.name)) {
        roles[row.role] = make_token(row.text, true, row.name);
      }
    }
    // Roles of one model, such as image_token: its own file says it first.
    for (const Json* file : {&config_, &map_}) {
      for (const auto& [key, value] : file->items()) {
        if (key.ends_with(kRoleSuffix) && !is_role(key) && is_token(value)) {
          add(roles, key, value, path_of(*file, key));
        }
      }
      if (const auto extra = file->find(kExtra);
          extra != file->end() && extra->is_object()) {
        for (const auto& [key, value] : extra->items()) {
          add(roles, key, value, path_of(*file, kExtra));
        }
      }
    }
    return roles;
  }

  /** Tokens that are special without a role. */
  Json extra() const {
    Json tokens = Json::array();
    append(tokens, config_, kExtra);
    append(tokens, map_, kExtra);
    return tokens;
  }

  /** The same, under their older name in special_tokens_map.json. */
  Json formerly_extra() const {
    Json tokens = Json::array();
    if (!config_.contains(kExtra) && !map_.contains(kExtra)) {
      append(tokens, map_, kExtraFormerly);
    }
    return tokens;
  }

  /** Tokens by id: added_tokens_decoder, or added_tokens.json, which does not
   * say what is special: the texts given here are. */
  Json listed(const std::set<std::string>& special) const {
    std::map<std::int64_t, Json> by_id;
    if (lists_tokens()) {
      const std::string where = path_of(config_, kListed);
      for (const auto& [key, value] :
           artifacts::required_object(config_, kListed, where).items()) {
        by_id[parse_id(key, where)] = make_token(value, false, where);
      }
    } else {
      const Json file = read("added_tokens.json");
      const std::string where = (where_ / "added_tokens.json").string();
      for (const auto& [content, value] : file.items()) {
        const auto id =
            artifacts::required<std::int64_t>(file, content.c_str(), where);
        by_id[id] = make_token(content, special.contains(content), where);
      }
    }
    Json tokens = Json::array();
    for (auto& [id, token] : by_id) {
      token["id"] = id;
      tokens.push_back(std::move(token));
    }
    return tokens;
  }

 private:
  bool is_class(std::string_view name) const {
    const auto found = config_.find("tokenizer_class");
    if (found == config_.end() || !found->is_string()) {
      return false;
    }
    auto own = found->get<std::string>();
    if (own.ends_with("Fast")) {
      own.resize(own.size() - std::string_view("Fast").size());
    }
    // Llama 3's kind of tokenizer says this class too, and is another one.
    return own == name &&
        (name != "LlamaTokenizer" ||
         files_("tokenizer.json").value_or("").find("\"ByteLevel\"") ==
             std::string::npos);
  }

  static bool is_empty(const Json& object, const char* key) {
    const auto found = object.find(key);
    return found == object.end() || found->is_null() || found->empty();
  }

  static void add(
      Json& roles,
      const std::string& key,
      const Json& value,
      const std::string& where) {
    if (!roles.contains(key)) {
      roles[key] = make_token(value, true, where);
    }
  }

  Json read(const char* name) const {
    return read_side_object(files_, where_, name);
  }

  std::string path_of(const Json& file, const std::string& key) const {
    const char* name =
        &file == &map_ ? "special_tokens_map.json" : "tokenizer_config.json";
    return fmt::format("{}: {}", (where_ / name).string(), key);
  }

  void append(Json& tokens, const Json& file, const char* key) const {
    const auto list = file.find(key);
    if (list == file.end() || !list->is_array()) {
      return;
    }
    for (const Json& value : *list) {
      // An object of tokenizer_config.json says itself whether it is special.
      const bool special = value.is_string() || &file == &map_;
      tokens.push_back(make_token(value, special, path_of(file, key)));
    }
  }

  static std::int64_t parse_id(
      const std::string& key,
      const std::string& where) {
    std::int64_t id = -1;
    const char* end = key.data() + key.size();
    const auto [stop, error] = std::from_chars(key.data(), end, id);
    if (error != std::errc() || stop != end || id < 0) {
      fail(
          ErrorKind::Corrupt,
          "[SpecialTokens::read] {}: found the key '{}', expected a token's id",
          where,
          key.substr(0, 40));
    }
    return id;
  }

  const SideFiles& files_;
  const std::filesystem::path& where_;
  Json config_;
  Json map_ = Json::object();
};

/** The `added_tokens` of a tokenizer.json, while tokens are added. */
class AddedTokenList {
 public:
  AddedTokenList(
      Json& list,
      std::size_t vocabulary_size,
      const std::function<std::optional<std::uint32_t>(std::string_view)>& find)
      : list_(list), next_id_(vocabulary_size), find_(find) {
    for (std::size_t i = 0; i < list.size(); ++i) {
      const Json& token = list[i];
      if (is_token(token) && token.contains("id") &&
          token["id"].is_number_unsigned()) {
        places_.emplace(token["content"].get<std::string>(), i);
        take_id(token["id"].get<std::uint64_t>());
      }
    }
  }

  bool has_id(std::uint64_t id) const {
    return ids_.contains(id);
  }
  bool has(const std::string& content) const {
    return places_.contains(content);
  }

  void put(const Json& token) {
    const auto content = token["content"].get<std::string>();
    if (content.empty()) {
      return;
    }
    if (const auto place = places_.find(content); place != places_.end()) {
      update(list_[place->second], token);
      return;
    }
    Json added = token;
    added["id"] = find_(content).value_or(next_id_);
    take_id(added["id"].get<std::uint64_t>());
    places_.emplace(content, list_.size());
    list_.push_back(std::move(added));
  }

 private:
  /** Once special, always special; and where a special token is looked for
   * (before or after normalization) does not change. */
  static void update(Json& known, const Json& token) {
    const Json before = known;
    known.update(token);
    if (before.value("special", Json(false)) == true) {
      known["special"] = true;
      known["normalized"] = before.value("normalized", Json(false));
    }
    known["id"] = before["id"];
  }

  void take_id(std::uint64_t id) {
    ids_.insert(id);
    next_id_ = std::max(next_id_, id + 1);
  }

  Json& list_;
  std::unordered_map<std::string, std::size_t> places_; // by content
  std::set<std::uint64_t> ids_;
  std::uint64_t next_id_;
  const std::function<std::optional<std::uint32_t>(std::string_view)>& find_;
};

} // namespace

SpecialTokens SpecialTokens::read(
    const SideFiles& files,
    const std::filesystem::path& where) {
  const Gatherer gatherer(files, where);
  SpecialTokens made;
  std::set<std::string> special;
  const Json roles = gatherer.roles();
  for (const auto& [role, token] : roles.items()) {
    made.by_role_[role] = token["content"];
    made.named_.push_back(token);
    if (is_role(role)) {
      special.insert(token["content"].get<std::string>());
    }
  }
  for (const Json& token : gatherer.extra()) {
    made.named_.push_back(token);
    special.insert(token["content"].get<std::string>());
  }
  // transformers asks the lists above for what is special in added_tokens.json.
  for (const Json& token : gatherer.formerly_extra()) {
    made.named_.push_back(token);
  }
  made.listed_ = gatherer.listed(special);
  made.listed_yield_ = !gatherer.lists_tokens();
  return made;
}

std::optional<std::string> SpecialTokens::text_of(const char* role) const {
  const auto found = by_role_.find(role);
  return found == by_role_.end() ? std::nullopt
                                 : std::optional(found->get<std::string>());
}

void SpecialTokens::add_to(
    Json& added_tokens,
    std::size_t vocabulary_size,
    const std::function<std::optional<std::uint32_t>(std::string_view)>& find)
    const {
  if (added_tokens.is_null()) {
    added_tokens = Json::array();
  }
  if (!added_tokens.is_array()) {
    return; // for the tokenizer's reader to refuse
  }
  AddedTokenList list(added_tokens, vocabulary_size, find);
  std::set<std::string> with_role;
  for (const Json& text : by_role_) {
    with_role.insert(text.get<std::string>());
  }
  // What is listed is special when it has a role, whatever its flag says.
  const auto with_flag = [&](Json token) {
    if (with_role.contains(token["content"].get<std::string>())) {
      token["special"] = true;
    }
    return token;
  };
  Json wanted = Json::array();
  std::set<std::string> listed;
  if (listed_yield_) { // tokenizer.json's own tokens are listed too
    for (const Json& token : added_tokens) {
      if (is_token(token) && token.is_object()) {
        wanted.push_back(with_flag(token));
      }
    }
  }
  for (const Json& token : listed_) {
    if (!(listed_yield_ && list.has_id(token["id"].get<std::uint64_t>()))) {
      listed.insert(token["content"].get<std::string>());
      wanted.push_back(with_flag(token));
    }
  }
  for (const Json& token : named_) {
    const auto content = token["content"].get<std::string>();
    if (!list.has(content) && !listed.contains(content)) {
      wanted.push_back(token);
    }
  }
  for (const Json& token : wanted) {
    list.put(token);
  }
}

} // namespace optiq::text
