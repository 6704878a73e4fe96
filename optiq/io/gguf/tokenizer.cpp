// Keys under "tokenizer.ggml.":
//   model        "gpt2": byte-level BPE with `merges`; "llama": SentencePiece
//                BPE with `scores`
//   pre          name of the pre-tokenizer of a gpt2 tokenizer; "default"
//                without it
//   tokens       spelling by id: byte-level letters (gpt2), or pieces with
//                U+2581 for a space (llama)
//   token_type   1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused (rows
//                of the embeddings without a token), 6 byte "<0xNN>";
//                normal without it
//   scores       the higher, the earlier is a piece merged
//   merges       "left right", first to last
//   add_space_prefix
// and those of special tokens (special_tokens.cpp).
#include "optiq/io/gguf/tokenizer.h"

#include <algorithm>
#include <unordered_map>

#include "optiq/io/gguf/pre_tokenizer_impl.h"
#include "optiq/io/gguf/special_tokens_impl.h"
#include "optiq/io/gguf/vocabulary_impl.h"

namespace optiq::io {
namespace {

using artifacts::Json;

// Of a piece with a score: SentencePiece makes them of 16 characters, Gemma 3's
// longest has 48 bytes. Every split of a piece is looked up, in time quadratic
// in its length.
constexpr std::size_t kMaxPieceBytes = 1024;
constexpr std::string_view kSpaceMark = "\u2581";

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
    const GgufVocabulary& vocabulary) {
  const auto lines =
      required_key(file, "merges", file.texts(kTokenizerPrefix + "merges"));
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
      reject_key(
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

Parts byte_level_parts(const GgufFile& file, const GgufVocabulary& vocabulary) {
  const GgufPreTokenizer rule = read_pre_tokenizer(file);
  return {
      .normalizer = rule.normalizer,
      .pre_tokenizer = rule.pre_tokenizer,
      .post_processor =
          special_token_frame(file, rule.add_bos, byte_level_json(true)),
      .decoder = byte_level_json(true),
      .model_options = fmt::format(
          R"("unk_token":null,"fuse_unk":false,"byte_fallback":false,)"
          R"("ignore_merges":{})",
          rule.ignore_merges),
      .merges = read_merges(file, vocabulary)};
}

/** Bytes of the UTF-8 character that starts with this one. */
std::size_t character_bytes(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

/** The normal pieces' ids, by spelling: the others stand for themselves and
 * never merge. */
using PieceIds = std::unordered_map<std::string_view, std::size_t>;

PieceIds normal_pieces(const GgufFile& file, const GgufVocabulary& vocabulary) {
  PieceIds ids;
  for (std::size_t id = 0; id < vocabulary.spellings.size(); ++id) {
    if (vocabulary.types[id] != kNormalToken) {
      continue;
    }
    const std::string_view piece = vocabulary.spellings[id];
    if (piece.size() > kMaxPieceBytes) {
      reject_key(
          ErrorKind::Unsupported,
          file,
          "tokens",
          "token {} has {} bytes, expected at most {}",
          id,
          piece.size(),
          kMaxPieceBytes);
    }
    ids.emplace(piece, id);
  }
  return ids;
}

using Merges = std::vector<std::pair<std::size_t, std::size_t>>;

/** The splits of one piece into two, in the order of their ids. */
void add_splits(std::string_view piece, const PieceIds& ids, Merges& merges) {
  const auto first = static_cast<std::ptrdiff_t>(merges.size());
  for (std::size_t at = piece.empty() ? 0 : character_bytes(piece[0]);
       at < piece.size();
       at += character_bytes(piece[at])) {
    const auto left = ids.find(piece.substr(0, at));
    const auto right = ids.find(piece.substr(at));
    if (left != ids.end() && right != ids.end()) {
      merges.emplace_back(left->second, right->second);
    }
  }
  std::sort(merges.begin() + first, merges.end());
}

/** Every split of a piece into two pieces, the pieces of the highest score
 * first: SentencePiece merges whatever two neighbours make the best piece. */
Merges merges_of_scores(
    const GgufFile& file,
    const GgufVocabulary& vocabulary) {
  const std::vector<float> scores = read_scores(file, vocabulary);
  const PieceIds ids = normal_pieces(file, vocabulary);
  std::vector<std::size_t> order;
  for (std::size_t id = 0; id < scores.size(); ++id) {
    if (vocabulary.types[id] == kNormalToken) {
      order.push_back(id);
    }
  }
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
    return scores[a] > scores[b];
  });
  Merges merges;
  for (const std::size_t id : order) {
    add_splits(vocabulary.spellings[id], ids, merges);
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

Parts sentence_piece_parts(
    const GgufFile& file,
    const GgufVocabulary& vocabulary) {
  const std::string mark(kSpaceMark);
  const Json spaces = replace(" ", mark.c_str());
  Json decoders = Json::array(
      {replace(mark.c_str(), " "),
       Json{{"type", "ByteFallback"}},
       Json{{"type", "Fuse"}}});
  Json normalizer = spaces;
  if (file.boolean(kTokenizerPrefix + "add_space_prefix").value_or(true)) {
    normalizer = sequence_of(
        "normalizers",
        Json::array({Json{{"type", "Prepend"}, {"prepend", mark}}, spaces}));
    decoders.push_back(
        {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  const auto unknown = read_special_tokens(file).unk;
  return {
      .normalizer = std::move(normalizer),
      .pre_tokenizer = nullptr, // words are cut nowhere
      .post_processor = special_token_frame(file, false, nullptr),
      .decoder = sequence_of("decoders", std::move(decoders)),
      .model_options = fmt::format(
          R"("unk_token":{},"fuse_unk":true,"byte_fallback":true,)"
          R"("ignore_merges":false)",
          unknown ? vocabulary.json[*unknown] : "null"),
      .merges = merges_of_scores(file, vocabulary)};
}

void append_added_tokens(const GgufVocabulary& vocabulary, std::string& out) {
  const char* comma = "";
  for (std::size_t id = 0; id < vocabulary.json.size(); ++id) {
    if (vocabulary.is_added(id)) {
      out += fmt::format(
          R"({}{{"id":{},"content":{},"single_word":false,"lstrip":false,)"
          R"("rstrip":false,"normalized":false,"special":{}}})",
          comma,
          id,
          vocabulary.json[id],
          vocabulary.is_special(id));
      comma = ",\n";
    }
  }
}

void append_model(
    const GgufVocabulary& vocabulary,
    const Parts& parts,
    std::string& out) {
  out += R"({"type":"BPE","dropout":null,"continuing_subword_prefix":null,)"
         R"("end_of_word_suffix":null,)";
  out += parts.model_options;
  out += ",\"vocab\":{";
  const char* comma = "";
  for (std::size_t id = 0; id < vocabulary.json.size(); ++id) {
    if (vocabulary.types[id] != kUnusedToken) {
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
      required_key(file, "model", file.text(kTokenizerPrefix + "model"));
  if (model != "gpt2" && model != "llama") {
    reject_key(
        ErrorKind::Unsupported,
        file,
        "model",
        "found '{}', expected gpt2, llama or t5. Use the Hugging Face directory of "
        "this model instead",
        model);
  }
  const GgufVocabulary vocabulary = read_vocabulary(file);
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

} // namespace optiq::io
