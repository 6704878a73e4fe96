#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "optiq/text/prefix_trie_impl.h"

namespace optiq::text {

/** A token of a SentencePiece model. */
struct SentencePiece {
  // The numbers of the file format.
  enum class Type {
    Normal = 1,
    Unknown = 2,
    Control = 3, // is in no text
    UserDefined = 4, // is never cut, never part of another piece
    Unused = 5, // is never the result
    Byte = 6, // spelled <0xNN>
  };
  std::string_view text; // of the file's bytes; not empty
  float score = 0;
  Type type = Type::Normal;
};

/**
 * A SentencePiece `tokenizer.model`: a ModelProto of sentencepiece_model.proto.
 * Fields that only trainers use are skipped.
 *
 *   ModelProto      1 pieces*, 2 trainer_spec, 3 normalizer_spec,
 *                   5 denormalizer_spec
 *   SentencePiece   1 piece, 2 score, 3 type
 *   TrainerSpec     3 model_type, 24 treat_whitespace_as_suffix,
 *                   35 byte_fallback, 41 bos_id, 42 eos_id, 46 bos_piece,
 *                   47 eos_piece
 *   NormalizerSpec  2 precompiled_charsmap, 3 add_dummy_prefix,
 *                   4 remove_extra_whitespaces, 5 escape_whitespaces
 */
struct SentencePieceModel {
  enum class Kind { Unigram = 1, Bpe = 2, Word = 3, Char = 4 };

  std::vector<SentencePiece> pieces; // by id
  std::uint32_t unknown_id = 0;
  // Ids of the bytes, when the model falls back to them.
  std::optional<std::array<std::uint32_t, 256>> byte_ids;
  Kind kind = Kind::Unigram;
  bool space_as_suffix = false;
  std::optional<std::string_view> bos_piece; // absent: the model has none
  std::optional<std::string_view> eos_piece;
  std::string_view charsmap; // empty: none
  bool add_dummy_prefix = true;
  bool remove_extra_spaces = true;
  bool escape_spaces = true;
};

/** `bytes` outlive the result. Throws Corrupt or Unsupported, naming
 * `where`. */
SentencePieceModel read_sentencepiece_model(
    std::string_view bytes,
    const std::string& where);

/** The user-defined pieces with their ids; nothing when there are none. */
std::optional<PrefixTrie> user_defined_pieces(const SentencePieceModel& model);

} // namespace optiq::text
