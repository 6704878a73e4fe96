#include "optiq/base/error.h"
#include "optiq/text/unicode_impl.h"
#include "optiq/text/unigram_impl.h"

namespace optiq::text {
namespace {

std::vector<PrefixTrie::Entry> trie_entries(
    const std::vector<UnigramPiece>& pieces) {
  std::vector<PrefixTrie::Entry> entries;
  entries.reserve(pieces.size());
  for (const UnigramPiece& piece : pieces) {
    entries.push_back({piece.text, static_cast<std::uint32_t>(entries.size())});
  }
  return entries;
}

} // namespace

UnigramModel::UnigramModel(
    const Vocabulary& vocabulary,
    const std::vector<UnigramPiece>& pieces,
    UnigramOptions options)
    : options_(options), trie_(trie_entries(pieces)) {
  pieces_.reserve(pieces.size());
  for (const UnigramPiece& piece : pieces) {
    pieces_.push_back({piece.score, piece.id});
  }
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    fallback_ids_[byte] = vocabulary.find(fmt::format("<0x{:02X}>", byte));
  }
}

void UnigramModel::find_best_path(std::string_view word, Scratch& scratch)
    const {
  auto& places = scratch.places;
  places.assign(word.size() + 1, {0, kNowhere, kUnknown});
  const auto reach = [&](std::size_t begin,
                         std::size_t size,
                         double score,
                         std::uint32_t piece) {
    Scratch::Place& place = places[begin + size];
    double sum = score + places[begin].score;
    if (options_.float_scores) {
      sum = static_cast<float>(sum);
    }
    if (place.begin == kNowhere || sum > place.score) {
      place = {sum, static_cast<std::uint32_t>(begin), piece};
    }
  };
  for (std::size_t at = 0; at < word.size();) {
    const std::size_t character = decode_character(word.data() + at).length;
    bool is_piece = false;
    trie_.for_each_prefix(
        word.substr(at), [&](std::size_t size, std::uint32_t piece) {
          reach(at, size, pieces_[piece].score, piece);
          is_piece |= size == character;
        });
    if (!is_piece) {
      reach(at, character, options_.unknown_score, kUnknown);
    }
    at += character;
  }
}

/** A run of unknown characters, which may spell a token when it is whole. */
void UnigramModel::append_unknown(
    std::string_view run,
    std::vector<std::int32_t>& ids) const {
  std::optional<std::uint32_t> whole;
  trie_.for_each_prefix(run, [&](std::size_t size, std::uint32_t piece) {
    if (size == run.size()) {
      whole = pieces_[piece].id;
    }
  });
  if (whole) {
    ids.push_back(static_cast<std::int32_t>(*whole));
    return;
  }
  if (options_.byte_fallback) {
    const std::size_t first = ids.size();
    for (const char c : run) {
      if (const auto id = fallback_ids_[static_cast<unsigned char>(c)]) {
        ids.push_back(static_cast<std::int32_t>(*id));
      }
    }
    if (ids.size() - first == run.size()) {
      return;
    }
    ids.resize(first);
  }
  if (!options_.unk_id) {
    fail(
        ErrorKind::Corrupt,
        "[Tokenizer::encode] model.unk_id: found nothing, expected the id of a "
        "token, since the text has a character that is no token. Fetch "
        "tokenizer.json again");
  }
  ids.push_back(static_cast<std::int32_t>(*options_.unk_id));
}

void UnigramModel::encode(
    std::string_view word,
    Scratch& scratch,
    std::vector<std::int32_t>& ids) const {
  if (options_.byte_level) {
    scratch.spelled = alphabet_.spell(word);
    word = scratch.spelled;
  }
  find_best_path(word, scratch);
  auto& cuts = scratch.cuts; // ends of pieces, the last first
  cuts.clear();
  for (auto end = static_cast<std::uint32_t>(word.size()); end > 0;
       end = scratch.places[end].begin) {
    cuts.push_back(end);
  }
  std::uint32_t unknown_begin = kNowhere;
  for (std::size_t i = cuts.size(); i-- > 0;) {
    const Scratch::Place& place = scratch.places[cuts[i]];
    const bool unknown = is_unknown(place.piece);
    if (unknown && unknown_begin == kNowhere) {
      unknown_begin = place.begin;
    } else if (!unknown && unknown_begin != kNowhere) {
      append_unknown(
          word.substr(unknown_begin, place.begin - unknown_begin), ids);
      unknown_begin = kNowhere;
    }
    if (!unknown) {
      ids.push_back(static_cast<std::int32_t>(pieces_[place.piece].id));
    }
  }
  if (unknown_begin != kNowhere) {
    append_unknown(word.substr(unknown_begin), ids);
  }
}

} // namespace optiq::text
