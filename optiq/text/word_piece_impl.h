#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "optiq/text/prefix_trie_impl.h"
#include "optiq/text/vocabulary_impl.h"

namespace optiq::text {

struct WordPieceOptions {
  std::string unk_token; // stands for a word that is not made of pieces
  std::string continuing_prefix; // of pieces behind the first, as "##"
  std::size_t max_characters = 100; // longer words are unknown
};

/** WordPiece: the longest piece that a word begins with, again and again. */
class WordPieceModel {
 public:
  struct Scratch {};

  WordPieceModel(const Vocabulary& vocabulary, WordPieceOptions options);
  /** Appends the ids of a word, valid UTF-8 and not empty. */
  void encode(
      std::string_view word,
      Scratch& scratch,
      std::vector<std::int32_t>& ids) const;

 private:
  WordPieceOptions options_;
  std::optional<std::uint32_t> unknown_;
  PrefixTrie first_;
  PrefixTrie rest_; // without the prefix
};

/** A word is one token, or unknown. */
class WordLevelModel {
 public:
  struct Scratch {};

  /** `vocabulary` must outlive the model. */
  WordLevelModel(const Vocabulary& vocabulary, std::string unk_token)
      : vocabulary_(vocabulary), unk_token_(std::move(unk_token)) {}
  void encode(
      std::string_view word,
      Scratch& scratch,
      std::vector<std::int32_t>& ids) const;

 private:
  const Vocabulary& vocabulary_;
  std::string unk_token_;
};

} // namespace optiq::text
