#include <algorithm>

#include "optiq/base/error.h"
#include "optiq/text/word_piece_impl.h"

namespace optiq::text {
namespace {

std::int32_t require_unknown(
    std::optional<std::uint32_t> id,
    const std::string& unk_token) {
  if (!id) {
    fail(
        ErrorKind::Corrupt,
        "[Tokenizer::encode] model.unk_token: found '{}', expected a token of "
        "model.vocab, since the text has a word that is not in it. Fetch "
        "tokenizer.json again",
        unk_token);
  }
  return static_cast<std::int32_t>(*id);
}

std::size_t count_characters(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) {
        return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
      }));
}

/** The tokens that begin with `prefix`, without it. */
std::vector<PrefixTrie::Entry> pieces_behind(
    std::string_view prefix,
    const Vocabulary& vocabulary) {
  std::vector<PrefixTrie::Entry> pieces;
  for (std::uint32_t id = 0; id < vocabulary.id_limit(); ++id) {
    const auto token = vocabulary.token(id);
    if (token && token->size() > prefix.size() && token->starts_with(prefix)) {
      pieces.push_back({token->substr(prefix.size()), id});
    }
  }
  return pieces;
}

} // namespace

WordPieceModel::WordPieceModel(
    const Vocabulary& vocabulary,
    WordPieceOptions options)
    : options_(std::move(options)),
      unknown_(vocabulary.find(options_.unk_token)),
      first_(pieces_behind("", vocabulary)),
      rest_(pieces_behind(options_.continuing_prefix, vocabulary)) {}

void WordPieceModel::encode(
    std::string_view word,
    Scratch&,
    std::vector<std::int32_t>& ids) const {
  const std::size_t kept = ids.size();
  bool known = count_characters(word) <= options_.max_characters;
  for (std::size_t at = 0; known && at < word.size();) {
    std::size_t longest = 0;
    std::uint32_t piece = 0;
    (at == 0 ? first_ : rest_)
        .for_each_prefix(
            word.substr(at), [&](std::size_t size, std::uint32_t id) {
              longest = size;
              piece = id;
            });
    known = longest > 0;
    ids.push_back(static_cast<std::int32_t>(piece));
    at += longest;
  }
  if (!known) {
    ids.resize(kept);
    ids.push_back(require_unknown(unknown_, options_.unk_token));
  }
}

void WordLevelModel::encode(
    std::string_view word,
    Scratch&,
    std::vector<std::int32_t>& ids) const {
  const auto id = vocabulary_.find(word);
  ids.push_back(
      id ? static_cast<std::int32_t>(*id)
         : require_unknown(vocabulary_.find(unk_token_), unk_token_));
}

} // namespace optiq::text
