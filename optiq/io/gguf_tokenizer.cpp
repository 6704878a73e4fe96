// Keys under "tokenizer.ggml.":
//   model        "gpt2": byte-level BPE with `merges`; "llama": SentencePiece
//                BPE with `scores`
//   pre          name of the pre-tokenizer of a gpt2 tokenizer
//   tokens       spelling by id: byte-level letters (gpt2), or pieces with
//                U+2581 for a space (llama)
//   token_type   1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused (rows
//                of the embeddings without a token), 6 byte "<0xNN>"
//   scores       the higher, the earlier is a piece merged
//   merges       "left right", first to last
//   bos_token_id, eos_token_id, unknown_token_id, padding_token_id
//   add_bos_token, add_eos_token, add_space_prefix
#include "optiq/io/gguf_tokenizer.h"

#include <algorithm>
#include <unordered_map>

#include "optiq/base/error.h"
#include "optiq/io/gguf_impl.h"

namespace optiq::io {
namespace {

using artifacts::Json;

constexpr std::size_t kMaxTokens = 4u << 20;
// Of a piece with a score: SentencePiece makes them of 16 characters, Gemma 3's
// longest has 48 bytes. Every split of a piece is looked up, in time quadratic
// in its length.
constexpr std::size_t kMaxPieceBytes = 1024;
constexpr std::string_view kSpaceMark = "\u2581";
const std::string kPrefix = "tokenizer.ggml.";

// Types of tokens.
constexpr std::int64_t kNormal = 1;
constexpr std::int64_t kControl = 3;
constexpr std::int64_t kUserDefined = 4;
constexpr std::int64_t kUnused = 5;
constexpr std::int64_t kByte = 6;

// Pre-tokenizer patterns of the published tokenizer.json files.
constexpr const char* kWordPatterns[] = {
    // by Words
    // Llama 3
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
    // Qwen 2, 2.5, 3
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
};
enum class Words { Llama3, Qwen2, Gpt2, Gpt2WithDigits };

struct PreTokenizerRow {
  const char* name; // of tokenizer.ggml.pre
  Words words;
  bool ignore_merges = false; // a whole word that is a token is taken as it is
  bool nfc = false;
  bool add_bos = false; // when add_bos_token is absent
};

constexpr PreTokenizerRow kPreTokenizers[] = {
    {"gpt-2", Words::Gpt2},
    {"smollm", Words::Gpt2WithDigits},
    {"starcoder", Words::Gpt2WithDigits},
    {"llama-bpe", Words::Llama3, true, false, true},
    {"llama3", Words::Llama3, true, false, true},
    {"llama-v3", Words::Llama3, true, false, true},
    {"qwen2", Words::Qwen2, false, true},
    {"deepseek-r1-qwen", Words::Qwen2, false, true},
};

/** The vocabulary of a file, checked. */
struct Vocabulary {
  std::vector<std::string_view> spellings;
  std::vector<std::int64_t> types;
  std::vector<std::string> json; // spellings as JSON strings

  bool is_added(std::size_t id) const {
    return types[id] == kControl || types[id] == kUserDefined;
  }
};

template <typename... Args>
[[noreturn]] void reject(
    ErrorKind kind,
    const GgufFile& file,
    const char* key,
    fmt::format_string<Args...> format,
    Args&&... args) {
  fail(
      kind,
      "[gguf_tokenizer] {}: key '{}{}': {}",
      file.path().string(),
      kPrefix,
      key,
      fmt::format(format, std::forward<Args>(args)...));
}

template <typename T>
T required(const GgufFile& file, const char* key, std::optional<T> value) {
  if (!value) {
    reject(
        ErrorKind::Corrupt,
        file,
        key,
        "is missing, expected a value. Is the file complete?");
  }
  return std::move(*value);
}

/** Whether a spelling is "<0x00>" to "<0xFF>". */
bool is_byte_token(std::string_view spelling) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  return spelling.size() == 6 && spelling.starts_with("<0x") &&
      spelling[5] == '>' &&
      kDigits.find(spelling[3]) != std::string_view::npos &&
      kDigits.find(spelling[4]) != std::string_view::npos;
}

Vocabulary read_vocabulary(const GgufFile& file) {
  Vocabulary vocabulary{
      .spellings = required(file, "tokens", file.texts(kPrefix + "tokens")),
      .types =
          required(file, "token_type", file.integers(kPrefix + "token_type")),
      .json = {}};
  const std::size_t n = vocabulary.spellings.size();
  if (n == 0 || n > kMaxTokens) {
    reject(
        ErrorKind::Corrupt,
        file,
        "tokens",
        "found {} tokens, expected 1 to {}",
        n,
        kMaxTokens);
  }
  if (vocabulary.types.size() != n) {
    reject(
        ErrorKind::Corrupt,
        file,
        "token_type",
        "found {} types, expected one for each of {} tokens",
        vocabulary.types.size(),
        n);
  }
  std::unordered_map<std::string_view, std::size_t> ids;
  vocabulary.json.resize(n);
  for (std::size_t id = 0; id < n; ++id) {
    const std::string_view spelling = vocabulary.spellings[id];
    const std::int64_t type = vocabulary.types[id];
    if (type < kNormal || type > kByte ||
        (type == kByte && !is_byte_token(spelling))) {
      reject(
          ErrorKind::Corrupt,
          file,
          "token_type",
          "token {} has type {}, expected 1 to 6, and 6 for <0x00> to <0xFF> "
          "only",
          id,
          type);
    }
    if (!append_json_string(spelling, vocabulary.json[id])) {
      reject(
          ErrorKind::Corrupt,
          file,
          "tokens",
          "token {} is not UTF-8, expected text",
          id);
    }
    if (const auto [at, is_new] = ids.emplace(spelling, id); !is_new) {
      reject(
          ErrorKind::Corrupt,
          file,
          "tokens",
          "tokens {} and {} are both {}, expected each once",
          at->second,
          id,
          vocabulary.json[id]);
    }
  }
  return vocabulary;
}

/** The id at a key such as bos_token_id; checked to be a token. */
std::optional<std::size_t>
token_id(const GgufFile& file, const char* key, const Vocabulary& vocabulary) {
  const auto id = file.integer(kPrefix + key);
  if (id && *id >= vocabulary.spellings.size()) {
    reject(
        ErrorKind::Corrupt,
        file,
        key,
        "found {}, expected the id of one of {} tokens",
        *id,
        vocabulary.spellings.size());
  }
  return id;
}

const PreTokenizerRow& find_pre_tokenizer(const GgufFile& file) {
  const std::string name = required(file, "pre", file.text(kPrefix + "pre"));
  std::string known;
  for (const PreTokenizerRow& row : kPreTokenizers) {
    if (name == row.name) {
      return row;
    }
    known += fmt::format("{}{}", known.empty() ? "" : ", ", row.name);
  }
  reject(
      ErrorKind::Unsupported,
      file,
      "pre",
      "found '{}', expected one of: {}. Use the Hugging Face directory of "
      "this model instead",
      name,
      known);
}

Json byte_level(bool use_regex) {
  return {
      {"type", "ByteLevel"},
      {"add_prefix_space", false},
      {"trim_offsets", true},
      {"use_regex", use_regex}};
}

Json pre_tokenizer_json(const PreTokenizerRow& row) {
  if (row.words == Words::Gpt2) {
    return byte_level(true);
  }
  Json parts = Json::array();
  if (row.words == Words::Gpt2WithDigits) {
    parts.push_back({{"type", "Digits"}, {"individual_digits", true}});
    parts.push_back(byte_level(true));
  } else {
    parts.push_back(
        {{"type", "Split"},
         {"pattern", {{"Regex", kWordPatterns[static_cast<int>(row.words)]}}},
         {"behavior", "Isolated"},
         {"invert", false}});
    parts.push_back(byte_level(false));
  }
  return {{"type", "Sequence"}, {"pretokenizers", parts}};
}

/** Puts BOS and EOS around a text, as the file asks for. */
Json post_processor(
    const GgufFile& file,
    const Vocabulary& vocabulary,
    bool default_bos,
    Json otherwise) {
  Json before = Json::array();
  Json after = Json::array();
  Json special = Json::object();
  const auto add =
      [&](const char* flag, bool fallback, const char* key, Json& side) {
        if (!file.boolean(kPrefix + flag).value_or(fallback)) {
          return;
        }
        const auto id = required(file, key, token_id(file, key, vocabulary));
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

/** The parts of a tokenizer.json beside vocabulary, merges, added tokens. */
struct Parts {
  Json normalizer;
  Json pre_tokenizer;
  Json post_processor;
  Json decoder;
  std::string model_options; // of "model", as text
  std::vector<std::pair<std::size_t, std::size_t>> merges; // ids
};

std::vector<std::pair<std::size_t, std::size_t>> read_merges(
    const GgufFile& file,
    const Vocabulary& vocabulary) {
  const auto lines = required(file, "merges", file.texts(kPrefix + "merges"));
  std::unordered_map<std::string_view, std::size_t> ids;
  for (std::size_t id = 0; id < vocabulary.spellings.size(); ++id) {
    ids.emplace(vocabulary.spellings[id], id);
  }
  std::vector<std::pair<std::size_t, std::size_t>> merges;
  merges.reserve(lines.size());
  for (const std::string_view line : lines) {
    const std::size_t space = line.find(' ');
    const auto left = ids.find(line.substr(0, space));
    const auto right = space == std::string_view::npos
        ? ids.end()
        : ids.find(line.substr(space + 1));
    if (left == ids.end() || right == ids.end()) {
      reject(
          ErrorKind::Corrupt,
          file,
          "merges",
          "merge {} is not two tokens and a space between them",
          merges.size());
    }
    merges.emplace_back(left->second, right->second);
  }
  return merges;
}

Parts byte_level_parts(const GgufFile& file, const Vocabulary& vocabulary) {
  const PreTokenizerRow& row = find_pre_tokenizer(file);
  return {
      .normalizer = row.nfc ? Json{{"type", "NFC"}} : Json(nullptr),
      .pre_tokenizer = pre_tokenizer_json(row),
      .post_processor =
          post_processor(file, vocabulary, row.add_bos, byte_level(true)),
      .decoder = byte_level(true),
      .model_options = fmt::format(
          R"("unk_token":null,"fuse_unk":false,"byte_fallback":false,)"
          R"("ignore_merges":{})",
          row.ignore_merges),
      .merges = read_merges(file, vocabulary)};
}

/** Bytes of the UTF-8 character that starts with this one. */
std::size_t character_bytes(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

/** Every split of a piece into two pieces, the pieces of the highest score
 * first: SentencePiece merges whatever two neighbours make the best piece. */
std::vector<std::pair<std::size_t, std::size_t>> merges_of_scores(
    const GgufFile& file,
    const Vocabulary& vocabulary) {
  const auto scores =
      required(file, "scores", file.numbers(kPrefix + "scores"));
  if (scores.size() != vocabulary.spellings.size()) {
    reject(
        ErrorKind::Corrupt,
        file,
        "scores",
        "found {} scores, expected one for each of {} tokens",
        scores.size(),
        vocabulary.spellings.size());
  }
  // Only normal pieces: the others stand for themselves and never merge.
  std::unordered_map<std::string_view, std::size_t> ids;
  std::vector<std::size_t> order;
  for (std::size_t id = 0; id < scores.size(); ++id) {
    if (vocabulary.types[id] == kNormal) {
      if (vocabulary.spellings[id].size() > kMaxPieceBytes) {
        reject(
            ErrorKind::Unsupported,
            file,
            "tokens",
            "token {} has {} bytes, expected at most {}",
            id,
            vocabulary.spellings[id].size(),
            kMaxPieceBytes);
      }
      ids.emplace(vocabulary.spellings[id], id);
      order.push_back(id);
      if (scores[id] != scores[id]) {
        reject(
            ErrorKind::Corrupt,
            file,
            "scores",
            "the score of token {} is not a number",
            id);
      }
    }
  }
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
    return scores[a] > scores[b];
  });
  std::vector<std::pair<std::size_t, std::size_t>> merges;
  for (const std::size_t id : order) {
    const std::string_view piece = vocabulary.spellings[id];
    if (piece.empty()) {
      continue;
    }
    const std::size_t first = merges.size();
    for (std::size_t at = character_bytes(piece[0]); at < piece.size();
         at += character_bytes(piece[at])) {
      const auto left = ids.find(piece.substr(0, at));
      const auto right = ids.find(piece.substr(at));
      if (left != ids.end() && right != ids.end()) {
        merges.emplace_back(left->second, right->second);
      }
    }
    std::sort(
        merges.begin() + static_cast<std::ptrdiff_t>(first), merges.end());
  }
  return merges;
}

Json sequence_of(const char* parts, Json list) {
  return {{"type", "Sequence"}, {parts, std::move(list)}};
}

Json replace(const char* pattern, const char* content) {
  return {
      {"type", "Replace"},
      {"pattern", {{"String", pattern}}},
      {"content", content}};
}

Parts sentence_piece_parts(const GgufFile& file, const Vocabulary& vocabulary) {
  const std::string mark(kSpaceMark);
  const Json spaces = replace(" ", mark.c_str());
  Json decoders = Json::array(
      {replace(mark.c_str(), " "),
       Json{{"type", "ByteFallback"}},
       Json{{"type", "Fuse"}}});
  Json normalizer = spaces;
  if (file.boolean(kPrefix + "add_space_prefix").value_or(true)) {
    normalizer = sequence_of(
        "normalizers",
        Json::array({Json{{"type", "Prepend"}, {"prepend", mark}}, spaces}));
    decoders.push_back(
        {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  const auto unknown = token_id(file, "unknown_token_id", vocabulary);
  return {
      .normalizer = std::move(normalizer),
      .pre_tokenizer = nullptr, // words are cut nowhere
      .post_processor = post_processor(file, vocabulary, true, nullptr),
      .decoder = sequence_of("decoders", std::move(decoders)),
      .model_options = fmt::format(
          R"("unk_token":{},"fuse_unk":true,"byte_fallback":true,)"
          R"("ignore_merges":false)",
          unknown ? vocabulary.json[*unknown] : "null"),
      .merges = merges_of_scores(file, vocabulary)};
}

void append_added_tokens(const Vocabulary& vocabulary, std::string& out) {
  const char* comma = "";
  for (std::size_t id = 0; id < vocabulary.json.size(); ++id) {
    if (vocabulary.is_added(id)) {
      out += fmt::format(
          R"({}{{"id":{},"content":{},"single_word":false,"lstrip":false,)"
          R"("rstrip":false,"normalized":false,"special":{}}})",
          comma,
          id,
          vocabulary.json[id],
          vocabulary.types[id] == kControl);
      comma = ",\n";
    }
  }
}

void append_model(
    const Vocabulary& vocabulary,
    const Parts& parts,
    std::string& out) {
  out += R"({"type":"BPE","dropout":null,"continuing_subword_prefix":null,)"
         R"("end_of_word_suffix":null,)";
  out += parts.model_options;
  out += ",\"vocab\":{";
  const char* comma = "";
  for (std::size_t id = 0; id < vocabulary.json.size(); ++id) {
    if (vocabulary.types[id] != kUnused) {
      out += comma;
      out += vocabulary.json[id];
      out += ':';
      out += std::to_string(id);
      comma = ",\n";
    }
  }
  out += "},\"merges\":[";
  comma = "";
  for (const auto& [left, right] : parts.merges) {
    out += comma;
    out += '[';
    out += vocabulary.json[left];
    out += ',';
    out += vocabulary.json[right];
    out += ']';
    comma = ",\n";
  }
  out += "]}";
}

} // namespace

std::string gguf_tokenizer_json(const GgufFile& file) {
  const std::string model =
      required(file, "model", file.text(kPrefix + "model"));
  if (model != "gpt2" && model != "llama") {
    reject(
        ErrorKind::Unsupported,
        file,
        "model",
        "found '{}', expected gpt2 or llama. Use the Hugging Face directory of "
        "this model instead",
        model);
  }
  const Vocabulary vocabulary = read_vocabulary(file);
  const Parts parts = model == "gpt2" ? byte_level_parts(file, vocabulary)
                                      : sentence_piece_parts(file, vocabulary);
  std::string out =
      R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[)";
  append_added_tokens(vocabulary, out);
  out += fmt::format(
      "],\"normalizer\":{},\"pre_tokenizer\":{},\"post_processor\":{},"
      "\"decoder\":{},\"model\":",
      parts.normalizer.dump(),
      parts.pre_tokenizer.dump(),
      parts.post_processor.dump(),
      parts.decoder.dump());
  append_model(vocabulary, parts, out);
  out += "}\n";
  return out;
}

Json gguf_tokenizer_config(const GgufFile& file) {
  const Vocabulary vocabulary = read_vocabulary(file);
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
