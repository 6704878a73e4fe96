#include <algorithm>
#include <charconv>
#include <limits>
#include <map>

#include "optiq/base/error.h"
#include "optiq/text/sentencepiece_model_impl.h"
#include "optiq/text/tokenizer_impl.h"

namespace optiq::text {
namespace {

using artifacts::Json;
using Kind = SentencePieceModel::Kind;
using Type = SentencePiece::Type;

// What a character that is no piece costs, beside the least likely piece.
constexpr float kUnknownPenalty = 10;
// Of each byte of a user-defined piece but the first: above 0, where scores are
// logarithms of probabilities.
constexpr double kUserDefinedScore = 0.1;

Vocabulary make_vocabulary(const SentencePieceModel& model) {
  Vocabulary vocabulary;
  for (std::uint32_t id = 0; id < model.pieces.size(); ++id) {
    vocabulary.add(model.pieces[id].text, id);
  }
  vocabulary.index(); // the reader has refused pieces that are there twice
  return vocabulary;
}

UnigramModel make_unigram(
    const Vocabulary& vocabulary,
    const SentencePieceModel& model) {
  float lowest = std::numeric_limits<float>::max();
  for (const SentencePiece& piece : model.pieces) {
    if (piece.type == Type::Normal) {
      lowest = std::min(lowest, piece.score);
    }
  }
  std::vector<UnigramPiece> pieces;
  for (std::uint32_t id = 0; id < model.pieces.size(); ++id) {
    const SentencePiece& piece = model.pieces[id];
    if (piece.type == Type::Normal) {
      pieces.push_back({piece.text, id, piece.score});
    } else if (piece.type == Type::UserDefined) {
      const double score =
          kUserDefinedScore * static_cast<double>(piece.text.size()) -
          kUserDefinedScore;
      pieces.push_back({piece.text, id, static_cast<float>(score)});
    }
  }
  return {
      vocabulary,
      pieces,
      {.unk_id = model.unknown_id,
       .unknown_score = lowest - kUnknownPenalty,
       .byte_fallback = model.byte_ids.has_value(),
       .float_scores = true}};
}

TokenModel make_model(
    const Vocabulary& vocabulary,
    const SentencePieceModel& model,
    const std::string& where) {
  if (model.kind == Kind::Word) {
    fail(
        ErrorKind::Unsupported,
        "[Tokenizer::parse_sentencepiece] {}: found a model of words, which "
        "this version does not implement. Use a model with another tokenizer",
        where);
  }
  if (model.kind == Kind::Unigram) {
    return make_unigram(vocabulary, model);
  }
  return SentencePieceBpe(vocabulary, model);
}

SentencePieceNormalizer make_normalizer(
    const SentencePieceModel& model,
    const JsonField& config,
    const std::string& where) {
  using DummySpace = SentencePieceNormalizer::DummySpace;
  SentencePieceNormalizer normalizer{
      .user_defined = user_defined_pieces(model),
      .dummy_space_behind = model.space_as_suffix,
      .remove_extra_spaces = model.remove_extra_spaces,
      .mark_spaces = model.escape_spaces};
  if (!model.charsmap.empty()) {
    normalizer.charsmap =
        CharsMap::parse(model.charsmap, where + ": precompiled_charsmap");
  }
  if (!model.add_dummy_prefix || !config["add_prefix_space"].boolean_or(true)) {
    normalizer.dummy_space = DummySpace::None;
  } else if (config["legacy"].boolean_or(false)) {
    normalizer.dummy_space = DummySpace::EveryPart;
  }
  return normalizer;
}

TokenDecoder make_decoder(const SentencePieceModel& model) {
  using LeadingMark = TokenDecoder::LeadingMark;
  return TokenDecoder::sentencepiece(
      model.remove_extra_spaces    ? LeadingMark::DroppedBeforeText
          : model.add_dummy_prefix ? LeadingMark::DroppedOnce
                                   : LeadingMark::Kept,
      model.byte_ids.has_value());
}

/** A key of `added_tokens_decoder`. */
std::uint32_t parse_id(const std::string& key, const JsonField& field) {
  std::uint32_t id = 0;
  const char* end = key.data() + key.size();
  const auto [at, error] = std::from_chars(key.data(), end, id);
  if (error != std::errc() || at != end || id >= kMaxTokens) {
    field.reject("an object of tokens by id");
  }
  return id;
}

/** Control pieces, the unknown one, and what `added_tokens_decoder` of the
 * tokenizer's config adds, as the `added_tokens` of a tokenizer.json. */
Json added_tokens(const SentencePieceModel& model, const JsonField& config) {
  std::map<std::uint32_t, Json> tokens;
  for (std::uint32_t id = 0; id < model.pieces.size(); ++id) {
    const SentencePiece& piece = model.pieces[id];
    if (piece.type == Type::Control || piece.type == Type::Unknown) {
      tokens[id] = {
          {"content", piece.text}, {"special", true}, {"normalized", false}};
    }
  }
  const JsonField listed = config["added_tokens_decoder"];
  if (!listed.is_null()) {
    for (const auto& [key, token] : listed.value().items()) {
      tokens[parse_id(key, listed)] = token;
    }
  }
  Json list = Json::array();
  for (auto& [id, token] : tokens) {
    token["id"] = id;
    list.push_back(std::move(token));
  }
  return list;
}

/** The id of bos_token or eos_token, which may be an object with `content`. */
std::int32_t special_id(
    const Tokenizer& tokenizer,
    const JsonField& config,
    const char* key,
    const std::optional<std::string_view>& piece) {
  const JsonField field = config[key];
  std::string content(piece.value_or(""));
  if (field.has_type(Json::value_t::object)) {
    content = field["content"].string();
  } else if (!field.is_null()) {
    content = field.string();
  }
  const auto id = tokenizer.token_to_id(content);
  if (!id) {
    field.reject("a token, to put around a text");
  }
  return *id;
}

} // namespace

std::shared_ptr<const Tokenizer> Tokenizer::parse_sentencepiece(
    std::string_view model_bytes,
    const std::optional<std::string>& tokenizer_config_json,
    const std::filesystem::path& directory) {
  const std::string where = (directory / "tokenizer.model").string();
  const std::string config_where =
      (directory / "tokenizer_config.json").string();
  const SentencePieceModel model = read_sentencepiece_model(model_bytes, where);
  const Json document = tokenizer_config_json
      ? artifacts::parse_json(*tokenizer_config_json, config_where)
      : Json::object();
  const JsonField config(document, config_where);
  auto impl = std::make_unique<Impl>();
  impl->vocabulary = make_vocabulary(model);
  impl->id_limit = impl->vocabulary.id_limit();
  impl->model.emplace(make_model(impl->vocabulary, model, where));
  impl->sentencepiece = make_normalizer(model, config, where);
  impl->decoder = make_decoder(model);
  const Json added = added_tokens(model, config);
  impl->add_tokens({added, config_where + ".added_tokens_decoder"});
  std::shared_ptr<Tokenizer> tokenizer(new Tokenizer(std::move(impl)));
  SpecialTokenFrame& frame = tokenizer->impl_->frame;
  if (config["add_bos_token"].boolean_or(false)) {
    frame.before = {
        special_id(*tokenizer, config, "bos_token", model.bos_piece)};
  }
  if (config["add_eos_token"].boolean_or(false)) {
    frame.after = {
        special_id(*tokenizer, config, "eos_token", model.eos_piece)};
  }
  return tokenizer;
}

} // namespace optiq::text
