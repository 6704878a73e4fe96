#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "optiq/text/byte_level_impl.h"
#include "optiq/text/prefix_trie_impl.h"
#include "optiq/text/vocabulary_impl.h"

namespace optiq::text {

/** A token that texts may be cut into. */
struct UnigramPiece {
  std::string_view text; // not empty; no two are equal
  std::uint32_t id;
  double score; // logarithm of its probability
};

struct UnigramOptions {
  std::optional<std::uint32_t> unk_id; // absent: unknown characters are errors
  double unknown_score = 0; // of a character that is no piece
  bool byte_fallback = false; // unknown characters become <0xNN> tokens
  bool byte_level = false; // words are bytes, vocabulary spelled ByteLevel
  bool float_scores = false; // sums are float32, as SentencePiece has them
};

/**
 * Cuts a word into the pieces whose scores have the highest sum (Kudo 2018,
 * arXiv:1804.10959). A character that is no piece has the unknown score; a run
 * of them is one unknown token.
 */
class UnigramModel {
 public:
  /** Of `vocabulary` only the spellings <0xNN> are looked up. */
  UnigramModel(
      const Vocabulary& vocabulary,
      const std::vector<UnigramPiece>& pieces,
      UnigramOptions options);

  /** Buffers of one caller, reused from word to word. */
  struct Scratch {
    /** The best way to a place in the word. */
    struct Place {
      double score;
      std::uint32_t begin; // of its last piece; kNowhere: not reached yet
      std::uint32_t piece; // index; kUnknown: a character that is no piece
    };
    std::vector<Place> places;
    std::vector<std::uint32_t> cuts;
    std::string spelled;
  };

  /** Appends the ids of a word, valid UTF-8 (any bytes when byte-level), not
   * empty. O(bytes x longest piece). */
  void encode(
      std::string_view word,
      Scratch& scratch,
      std::vector<std::int32_t>& ids) const;

 private:
  static constexpr std::uint32_t kNowhere = ~0u;
  static constexpr std::uint32_t kUnknown = ~0u;
  struct Piece {
    double score;
    std::uint32_t id;
  };

  void find_best_path(std::string_view word, Scratch& scratch) const;
  bool is_unknown(std::uint32_t piece) const {
    return piece == kUnknown || pieces_[piece].id == options_.unk_id;
  }
  void append_unknown(std::string_view run, std::vector<std::int32_t>& ids)
      const;

  UnigramOptions options_;
  std::vector<Piece> pieces_;
  PrefixTrie trie_; // values are indices of pieces_
  ByteLevelAlphabet alphabet_;
  std::array<std::optional<std::uint32_t>, 256> fallback_ids_; // of <0xNN>
};

} // namespace optiq::text
