#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "optiq/text/prefix_trie_impl.h"
#include "optiq/text/sentencepiece_model_impl.h"
#include "optiq/text/vocabulary_impl.h"

namespace optiq::text {

/**
 * Byte-pair encoding without a list of merges, as SentencePiece has it: of all
 * neighbours that together spell a piece, those that spell the one of the
 * highest score merge first, leftmost on ties. Characters that are no piece
 * take part.
 */
class SentencePieceBpe {
 public:
  /** `vocabulary` has the pieces of `model` and outlives this. */
  SentencePieceBpe(
      const Vocabulary& vocabulary,
      const SentencePieceModel& model);

  /** Buffers of one caller, reused from text to text. */
  struct Scratch {
    struct Symbol {
      std::uint32_t begin = 0;
      std::uint32_t size = 0; // bytes; 0: merged into the one before
      std::uint32_t previous = 0;
      std::uint32_t next = 0;
      std::uint32_t id = 0; // kNone: no piece
      bool frozen = false; // a user-defined piece
    };
    /** Neighbours that spelled a piece when they were queued. */
    struct Candidate {
      std::uint32_t rank; // 0 for the highest score
      std::uint32_t left;
      std::uint32_t right;
      std::uint32_t size;
      std::uint32_t id;
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> queue; // a heap
    // Of an unused piece: the ids and bytes that last spelled it.
    struct Part {
      std::uint32_t id;
      std::string_view text;
    };
    std::unordered_map<std::uint32_t, std::pair<Part, Part>> unused;
  };

  /** Appends the ids of a normalized text. O(n log n). */
  void encode(
      std::string_view text,
      Scratch& scratch,
      std::vector<std::int32_t>& ids) const;

 private:
  static constexpr std::uint32_t kNone = ~0u;
  static constexpr std::uint32_t kNeverMerges = ~0u;

  void split(std::string_view text, Scratch& scratch) const;
  void offer(std::string_view text, std::uint32_t left, Scratch& scratch) const;
  void merge(std::string_view text, Scratch& scratch) const;
  void append(
      const Scratch::Part& part,
      const Scratch& scratch,
      bool& after_unknown,
      std::vector<std::int32_t>& ids) const;

  const Vocabulary& vocabulary_;
  std::uint32_t unknown_id_;
  bool merges_; // false for the kind Char
  std::vector<std::uint32_t> ranks_; // of merging into a piece, by id
  std::vector<bool> is_unused_; // by id; empty when there is none
  std::optional<PrefixTrie> user_defined_;
  std::optional<std::array<std::uint32_t, 256>> byte_ids_; // when falling back
};

} // namespace optiq::text
