#include <algorithm>
#include <limits>

#include "optiq/base/error.h"
#include "optiq/text/token_model_impl.h"

namespace optiq::text {
namespace {

// SentencePiece makes pieces of 16 characters. Every place of a text is
// compared with pieces up to the longest.
constexpr std::size_t kMaxPieceBytes = 1024;
// What a character that is no piece costs, beside the least likely piece.
constexpr double kUnknownPenalty = 10;
// A word may take its length squared in steps. BERT has 100.
constexpr std::uint32_t kMaxWordPieceCharacters = 1000;

BpeOptions parse_bpe_options(const JsonField& model, bool byte_level) {
  const JsonField dropout = model["dropout"];
  if (!dropout.is_null() && dropout.value() != 0) {
    dropout.refuse("random merges");
  }
  return {
      .unk_token = model["unk_token"].string_or(""),
      .continuing_prefix = model["continuing_subword_prefix"].string_or(""),
      .end_suffix = model["end_of_word_suffix"].string_or(""),
      .fuse_unk = model["fuse_unk"].boolean_or(false),
      .byte_fallback = model["byte_fallback"].boolean_or(false),
      .ignore_merges = model["ignore_merges"].boolean_or(false),
      .byte_level = byte_level};
}

std::vector<BpeMerge> resolve_merges(
    const TokenizerJson& json,
    const Vocabulary& vocabulary,
    std::string_view prefix,
    const std::string& where) {
  std::vector<BpeMerge> merges;
  merges.reserve(json.merges.size());
  for (const auto& [left, right] : json.merges) {
    const auto id = [&](const std::string& token) {
      const auto found = vocabulary.find(token);
      if (!found) {
        fail(
            ErrorKind::Corrupt,
            "[Tokenizer::parse] {}.model.merges[{}]: found '{}', expected a "
            "token of model.vocab. Fetch the file again",
            where,
            merges.size(),
            token);
      }
      return *found;
    };
    // A merged piece has no prefix of pieces behind another inside it.
    const std::size_t skipped = std::min(prefix.size(), right.size());
    merges.push_back({id(left), id(right), id(left + right.substr(skipped))});
  }
  return merges;
}

void require_ids(const TokenizerJson& json, const JsonField& model) {
  if (json.vocabulary_form != VocabularyForm::Ids) {
    model["vocab"].reject("an object of ids by token");
  }
}

BpeModel parse_bpe(
    const TokenizerJson& json,
    const Vocabulary& vocabulary,
    bool byte_level,
    const std::string& where) {
  const JsonField model(json.document["model"], where + ".model");
  BpeOptions options = parse_bpe_options(model, byte_level);
  require_ids(json, model);
  if (!json.has_merges) {
    model["merges"].reject("an array of merges");
  }
  std::vector<BpeMerge> merges =
      resolve_merges(json, vocabulary, options.continuing_prefix, where);
  return {vocabulary, merges, std::move(options)};
}

WordPieceModel parse_word_piece(
    const TokenizerJson& json,
    const Vocabulary& vocabulary,
    const std::string& where) {
  const JsonField model(json.document["model"], where + ".model");
  require_ids(json, model);
  return {
      vocabulary,
      {.unk_token = model["unk_token"].string(),
       .continuing_prefix = model["continuing_subword_prefix"].string(),
       .max_characters = model["max_input_chars_per_word"].index(
           kMaxWordPieceCharacters + 1)}};
}

WordLevelModel parse_word_level(
    const TokenizerJson& json,
    const Vocabulary& vocabulary,
    const std::string& where) {
  const JsonField model(json.document["model"], where + ".model");
  require_ids(json, model);
  return {vocabulary, model["unk_token"].string()};
}

/** Older files do not name it. */
std::string type_of(const TokenizerJson& json, const JsonField& model) {
  const JsonField type = model["type"];
  if (!type.is_null()) {
    return type.string();
  }
  const bool word_piece =
      !json.has_merges && !model["max_input_chars_per_word"].is_null();
  return word_piece ? "WordPiece" : "BPE";
}

UnigramModel parse_unigram(
    const TokenizerJson& json,
    const Vocabulary& vocabulary,
    bool byte_level,
    const std::string& where) {
  const JsonField model(json.document["model"], where + ".model");
  if (json.vocabulary_form != VocabularyForm::Scores) {
    model["vocab"].reject("an array of [token, score]");
  }
  UnigramOptions options{
      .byte_fallback = model["byte_fallback"].boolean_or(false),
      .byte_level = byte_level};
  const JsonField unk_id = model["unk_id"];
  if (!unk_id.is_null()) {
    options.unk_id = unk_id.index(vocabulary.id_limit());
  }
  std::vector<UnigramPiece> pieces;
  double lowest = std::numeric_limits<double>::infinity();
  for (std::uint32_t id = 0; id < vocabulary.id_limit(); ++id) {
    const std::string_view text = vocabulary.token(id).value();
    if (text.size() > kMaxPieceBytes) {
      model["vocab"].refuse(fmt::format(
          "a token of {} bytes, more than {}", text.size(), kMaxPieceBytes));
    }
    lowest = std::min(lowest, json.scores[id]);
    if (!text.empty()) {
      pieces.push_back({text, id, json.scores[id]});
    }
  }
  options.unknown_score = lowest - kUnknownPenalty;
  return {vocabulary, pieces, options};
}

} // namespace

bool takes_bytes(const TokenizerJson& json, const std::string& where) {
  const std::string name =
      type_of(json, JsonField(json.document, where)["model"]);
  return name == "BPE" || name == "Unigram";
}

TokenModel parse_token_model(
    const TokenizerJson& json,
    const Vocabulary& vocabulary,
    bool byte_level,
    const std::string& where) {
  const JsonField root(json.document, where);
  const std::string name = type_of(json, root["model"]);
  if (name == "BPE") {
    return parse_bpe(json, vocabulary, byte_level, where);
  }
  if (name == "Unigram") {
    return parse_unigram(json, vocabulary, byte_level, where);
  }
  if (name == "WordPiece") {
    return parse_word_piece(json, vocabulary, where);
  }
  if (name == "WordLevel") {
    return parse_word_level(json, vocabulary, where);
  }
  root["model"]["type"].refuse("the model " + name);
}

} // namespace optiq::text
