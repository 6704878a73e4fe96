#include "optiq/base/error.h"
#include "optiq/base/file.h"
#include "optiq/text/special_tokens.h"
#include "optiq/text/tokenizer_impl.h"
#include "optiq/text/tokenizer_json_impl.h"

namespace optiq::text {
namespace {

constexpr std::size_t kMaxFileBytes = 256u << 20;

AddedToken parse_added_token(const JsonField& field) {
  const bool special = field["special"].boolean();
  return {
      .id = field["id"].index(kMaxTokens),
      .content = field["content"].string(),
      .single_word = field["single_word"].boolean_or(false),
      .lstrip = field["lstrip"].boolean_or(false),
      .rstrip = field["rstrip"].boolean_or(false),
      .normalized = field["normalized"].boolean_or(!special),
      .special = special};
}

/** The ids that a template puts for one of its special tokens. */
std::vector<std::int32_t> parse_special_ids(
    const JsonField& special_tokens,
    const std::string& name,
    std::uint32_t id_limit) {
  std::vector<std::int32_t> ids;
  const JsonField list = special_tokens[name.c_str()]["ids"];
  for (std::size_t i = 0; i < list.array_size(); ++i) {
    ids.push_back(static_cast<std::int32_t>(list[i].index(id_limit)));
  }
  return ids;
}

/** Adds to a side of a frame. A short file could name one long list of ids many
 * times over. */
void insert_ids(
    std::vector<std::int32_t>& side,
    std::vector<std::int32_t>::const_iterator at,
    const std::vector<std::int32_t>& ids,
    const JsonField& field) {
  constexpr std::size_t kMaxFrame = 4096;
  if (ids.size() > kMaxFrame - side.size()) {
    field.refuse(
        "more than " + std::to_string(kMaxFrame) + " tokens around a text");
  }
  side.insert(at, ids.begin(), ids.end());
}

SpecialTokenFrame parse_template(
    const JsonField& field,
    std::uint32_t id_limit) {
  SpecialTokenFrame frame;
  bool text_seen = false;
  const JsonField single = field["single"];
  for (std::size_t i = 0; i < single.array_size(); ++i) {
    const JsonField piece = single[i];
    if (piece["SpecialToken"].is_null()) {
      const JsonField id = piece["Sequence"]["id"];
      if (id.string() != "A" || text_seen) {
        id.reject("A, once");
      }
      text_seen = true;
      continue;
    }
    const std::string name = piece["SpecialToken"]["id"].string();
    auto& side = text_seen ? frame.after : frame.before;
    insert_ids(
        side,
        side.end(),
        parse_special_ids(field["special_tokens"], name, id_limit),
        single);
  }
  if (!text_seen) {
    single.reject("a template with the sequence A");
  }
  return frame;
}

/** The id in ["[CLS]", 101]. */
std::int32_t parse_named_id(const JsonField& field, std::uint32_t id_limit) {
  if (field.array_size() != 2) {
    field.reject("a token and its id");
  }
  return static_cast<std::int32_t>(field[1].index(id_limit));
}

SpecialTokenFrame parse_post_processor(
    const JsonField& field,
    std::uint32_t id_limit) {
  SpecialTokenFrame frame;
  if (field.is_null()) {
    return frame;
  }
  const JsonField type_field = field["type"];
  const std::string type = type_field.string();
  if (type == "TemplateProcessing") {
    return parse_template(field, id_limit);
  }
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    frame.before = {parse_named_id(field["cls"], id_limit)};
    frame.after = {parse_named_id(field["sep"], id_limit)};
    return frame;
  }
  if (type == "Sequence") {
    const JsonField parts = field["processors"];
    for (std::size_t i = 0; i < parts.array_size(); ++i) {
      const SpecialTokenFrame outer = parse_post_processor(parts[i], id_limit);
      insert_ids(frame.before, frame.before.begin(), outer.before, parts);
      insert_ids(frame.after, frame.after.end(), outer.after, parts);
    }
  } else if (type != "ByteLevel") { // which only moves offsets
    type_field.refuse("the post-processor " + type);
  }
  return frame;
}

/** Files of byte-level vocabularies that were made from SentencePiece's keep
 * its decoder, which would show the alphabet of the bytes instead of them. */
TokenDecoder parse_decoder(
    const JsonField& field,
    const PreTokenizer& pre_tokenizer) {
  TokenDecoder decoder = TokenDecoder::parse(field);
  const bool shows_alphabet = !field.is_null() && pre_tokenizer.byte_level() &&
      !decoder.has_byte_level();
  return shows_alphabet ? TokenDecoder::byte_level() : decoder;
}

} // namespace

/**
 * Takes the entries of `added_tokens` as the original does, in the order of the
 * file: one without text does not count, one that is not in the vocabulary gets
 * the next id behind it, whatever the file says, and of two with one text the
 * later one's flags count.
 */
void Tokenizer::Impl::add_tokens(const JsonField& list) {
  if (list.is_null()) {
    return;
  }
  added.reserve(list.array_size()); // pointers into it are kept
  auto next_id = static_cast<std::uint32_t>(vocabulary.count());
  for (std::size_t i = 0; i < list.array_size(); ++i) {
    AddedToken token = parse_added_token(list[i]);
    if (token.content.empty()) {
      continue;
    }
    const auto again = added_ids.find(token.content);
    const auto known = vocabulary.find(token.content);
    token.id = again != added_ids.end() ? again->second
        : known                         ? *known
                                        : next_id++;
    added_ids[token.content] = token.id;
    id_limit = std::max(id_limit, token.id + 1);
    const AddedToken& kept = added.emplace_back(std::move(token));
    added_by_id[kept.id] = &kept;
  }
  for (const AddedToken& token : added) {
    if (added_by_id[token.id] != &token) {
      continue; // another one came later
    }
    if (!token.normalized) {
      raw_finder.add(token.content, token);
      continue;
    }
    PatternRun run(token.content.size());
    const std::string form = normalizer.apply(token.content, run);
    if (form.empty()) {
      list.reject(
          "tokens that normalization leaves, not '" + token.content + "'");
    }
    normalized_finder.add(form, token);
    if (form != token.content) {
      normalized_form.emplace(token.id, form);
    }
  }
}

std::shared_ptr<const Tokenizer> Tokenizer::parse(
    std::string_view tokenizer_json,
    const std::string& where,
    const SpecialTokens* special_tokens) {
  if (tokenizer_json.size() > kMaxFileBytes) {
    fail(
        ErrorKind::InvalidInput,
        "[Tokenizer::parse] {}: found {} bytes, expected at most {}. Is it a "
        "tokenizer?",
        where,
        tokenizer_json.size(),
        kMaxFileBytes);
  }
  TokenizerJson json = read_tokenizer_json(tokenizer_json, where);
  if (special_tokens != nullptr && json.document.is_object()) {
    special_tokens->add_to(
        json.document["added_tokens"],
        json.vocabulary.count(),
        [&](std::string_view token) { return json.vocabulary.find(token); });
  }
  const JsonField root(json.document, where);
  auto impl = std::make_unique<Impl>();
  impl->normalizer = Normalizer::parse(root["normalizer"]);
  impl->pre_tokenizer =
      PreTokenizer::parse(root["pre_tokenizer"], takes_bytes(json, where));
  impl->decoder = parse_decoder(root["decoder"], impl->pre_tokenizer);
  // `truncation` and `padding` are left: callers of the original switch both
  // off for every call.
  impl->vocabulary = std::move(json.vocabulary);
  impl->id_limit = impl->vocabulary.id_limit();
  impl->model.emplace(parse_token_model(
      json, impl->vocabulary, impl->pre_tokenizer.byte_level(), where));
  impl->add_tokens(root["added_tokens"]);
  impl->frame = parse_post_processor(root["post_processor"], impl->id_limit);
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(impl)));
}

std::shared_ptr<const Tokenizer> Tokenizer::load(
    const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "tokenizer.json";
  const std::filesystem::path model = directory / "tokenizer.model";
  const std::filesystem::path config = directory / "tokenizer_config.json";
  if (std::filesystem::exists(path) || !std::filesystem::exists(model)) {
    const std::string json = read_text_file(path, kMaxFileBytes);
    const auto special_tokens =
        SpecialTokens::read(side_files_of(directory), directory);
    return parse(json, path.string(), &special_tokens);
  }
  return parse_sentencepiece(
      read_text_file(model, kMaxFileBytes),
      std::filesystem::exists(config)
          ? std::optional(read_text_file(config, kMaxFileBytes))
          : std::nullopt,
      directory);
}

} // namespace optiq::text
