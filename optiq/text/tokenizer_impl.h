#pragma once

#include <unordered_map>
#include <vector>

#include "optiq/text/added_tokens_impl.h"
#include "optiq/text/normalizer_impl.h"
#include "optiq/text/pre_tokenizer_impl.h"
#include "optiq/text/sentencepiece_normalizer_impl.h"
#include "optiq/text/token_decoder_impl.h"
#include "optiq/text/token_model_impl.h"
#include "optiq/text/tokenizer.h"
#include "optiq/text/vocabulary_impl.h"

namespace optiq::text {

/** What the post-processor puts around the ids of a text. */
struct SpecialTokenFrame {
  std::vector<std::int32_t> before;
  std::vector<std::int32_t> after;
};

struct Tokenizer::Impl {
  Vocabulary vocabulary; // model.vocab
  std::optional<TokenModel> model;
  Normalizer normalizer;
  std::optional<SentencePieceNormalizer> sentencepiece; // instead of it
  PreTokenizer pre_tokenizer;
  TokenDecoder decoder;
  SpecialTokenFrame frame;

  std::vector<AddedToken> added; // in the order of the file
  std::unordered_map<std::uint32_t, const AddedToken*> added_by_id;
  std::unordered_map<std::string, std::uint32_t> added_ids;
  // What a normalized token becomes, and is decoded from; where it differs.
  std::unordered_map<std::uint32_t, std::string> normalized_form;
  AddedTokenFinder raw_finder; // before normalization
  AddedTokenFinder normalized_finder;
  std::uint32_t id_limit = 0;

  /** What the decoder is given for an id; nothing for a free one. */
  std::optional<std::string_view> spelling(std::int32_t id) const;
  bool is_special(std::int32_t id) const;
  void add_tokens(const JsonField& list);
  template <typename Model>
  void encode(
      const Model& token_model,
      std::string_view text,
      std::vector<std::int32_t>& ids) const;
};

} // namespace optiq::text
