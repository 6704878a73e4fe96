#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "optiq/text/byte_level_impl.h"
#include "optiq/text/vocabulary_impl.h"

namespace optiq::text {

struct BpeOptions {
  std::string unk_token; // empty: unknown characters are dropped
  std::string continuing_prefix; // of every character but a word's first
  std::string end_suffix; // of a word's last character
  bool fuse_unk = false; // a run of unknown characters is one token
  bool byte_fallback = false; // unknown characters become <0xNN> tokens
  bool ignore_merges = false; // a word of the vocabulary is taken as it is
  bool byte_level = false; // words are bytes, vocabulary spelled ByteLevel
};

/** A merge rule: the tokens `left` and `right` become one. */
struct BpeMerge {
  std::uint32_t left;
  std::uint32_t right;
  std::uint32_t merged;
};

/**
 * Byte-pair encoding: of all neighbours in a word that have a rule, those with
 * the earliest rule merge first, leftmost on ties, until none has one.
 */
class BpeModel {
 public:
  /** `vocabulary` must outlive the model. The rank of a merge is its index; of
   * two for one pair, the later counts. */
  BpeModel(
      const Vocabulary& vocabulary,
      const std::vector<BpeMerge>& merges,
      BpeOptions options);

  /** Buffers of one caller, reused from word to word. */
  struct Scratch {
    struct Symbol {
      std::uint32_t id;
      std::uint32_t rule; // with the next symbol; kNoRule without one
      std::uint32_t previous;
      std::uint32_t next;
    };
    std::vector<Symbol> symbols;
    std::string spelled;
    std::string marked; // a character with its prefix and suffix
  };

  /** Appends the ids of a word, valid UTF-8 and not empty. O(n log n). */
  void encode(
      std::string_view word,
      Scratch& scratch,
      std::vector<std::int32_t>& ids) const;

 private:
  static constexpr std::uint32_t kNoRule = ~0u;
  static constexpr std::uint32_t kUnknown = ~0u;
  struct Slot {
    std::uint64_t pair = ~0ull; // left << 32 | right
    std::uint32_t rank = kNoRule;
    std::uint32_t merged = 0;
  };
  /** Unknown characters not yet written. */
  struct PendingUnknown {
    bool any = false;
  };

  std::size_t slot_of(std::uint64_t pair) const;
  std::uint32_t find_rule(std::uint32_t left, std::uint32_t right) const;
  void split_word(std::string_view word, Scratch& scratch) const;
  std::string_view mark(
      std::string_view character,
      bool first,
      bool last,
      Scratch& scratch) const;
  void add_character(
      std::string_view character,
      PendingUnknown& pending,
      Scratch& scratch) const;
  bool add_fallback_bytes(std::string_view character, Scratch& scratch) const;
  std::uint32_t unknown_id() const;
  void merge_short(std::vector<Scratch::Symbol>& symbols) const;
  void merge_long(std::vector<Scratch::Symbol>& symbols) const;

  const Vocabulary& vocabulary_;
  BpeOptions options_;
  bool marks_ = false; // there is a prefix or a suffix
  ByteLevelAlphabet alphabet_;
  std::vector<Slot> slots_; // open addressing, a power of two
  int shift_ = 0; // 64 - log2(slots)
  std::vector<std::uint32_t> byte_ids_; // of one-byte words; kUnknown: none
  std::vector<std::uint32_t> fallback_ids_; // of <0xNN>
};

} // namespace optiq::text
