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

BpeOptions parse_bpe_options(const JsonField& model, bool byte_level) {
  const JsonField dropout = model["dropout"];
  if (!dropout.is_null() && dropout.value() != 0) {
    dropout.refuse("random merges");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model[key].string_or("").empty()) {
      model[key].refuse("a marker at word pieces");
    }
  }
  return {
      .unk_token = model["unk_token"].string_or(""),
      .fuse_unk = model["fuse_unk"].boolean_or(false),
      .byte_fallback = model["byte_fallback"].boolean_or(false),
      .ignore_merges = model["ignore_merges"].boolean_or(false),
      .byte_level = byte_level};
}

std::vector<BpeMerge> resolve_merges(
    const TokenizerJson& json,
    const Vocabulary& vocabulary,
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
    merges.push_back({id(left), id(right), id(left + right)});
  }
  return merges;
}

BpeModel parse_bpe(
    const TokenizerJson& json,
    const Vocabulary& vocabulary,
    bool byte_level,
    const std::string& where) {
  const JsonField model(json.document["model"], where + ".model");
  BpeOptions options = parse_bpe_options(model, byte_level);
  if (json.vocabulary_form != VocabularyForm::Ids) {
    model["vocab"].reject("an object of ids by token");
  }
  if (!json.has_merges) {
    model["merges"].reject("an array of merges");
  }
  return {
      vocabulary, resolve_merges(json, vocabulary, where), std::move(options)};
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

TokenModel parse_token_model(
    const TokenizerJson& json,
    const Vocabulary& vocabulary,
    bool byte_level,
    const std::string& where) {
  const JsonField root(json.document, where);
  const JsonField type = root["model"]["type"];
  const std::string name = type.string_or("BPE");
  if (name == "BPE") {
    return parse_bpe(json, vocabulary, byte_level, where);
  }
  if (name == "Unigram") {
    return parse_unigram(json, vocabulary, byte_level, where);
  }
  type.refuse("the model " + name);
}

} // namespace optiq::text
