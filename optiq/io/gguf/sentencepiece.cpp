// Keys under "tokenizer.ggml." of the model "t5", beside `tokens`, `token_type`
// and `scores`, which are the pieces:
//   precompiled_charsmap       bytes; the normalizer's compiled map
//   add_space_prefix, remove_extra_whitespaces
//   unknown_token_id           where no token has the type unknown
//   add_bos_token, add_eos_token
// They become a ModelProto of sentencepiece_model.proto.
#include "optiq/io/gguf/sentencepiece.h"

#include <bit>
#include <string_view>

#include "optiq/io/gguf/vocabulary_impl.h"

namespace optiq::io {
namespace {

constexpr std::int64_t kUnknownToken = 2;

std::string varint(std::uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) {
    out += static_cast<char>(value | 0x80);
  }
  out += static_cast<char>(value);
  return out;
}

std::string number_field(std::uint32_t field, std::uint64_t value) {
  return varint(field << 3) + varint(value);
}

std::string bytes_field(std::uint32_t field, std::string_view bytes) {
  return varint(field << 3 | 2) + varint(bytes.size()) + std::string(bytes);
}

std::string float_field(std::uint32_t field, float value) {
  std::string out = varint(field << 3 | 5);
  const auto bits = std::bit_cast<std::uint32_t>(value);
  for (int shift = 0; shift < 32; shift += 8) {
    out += static_cast<char>(bits >> shift & 0xFF);
  }
  return out;
}

std::string pieces_of(const GgufFile& file) {
  const GgufVocabulary vocabulary = read_vocabulary(file);
  const std::vector<float> scores = read_scores(file, vocabulary);
  const auto unknown = file.integer(kTokenizerPrefix + "unknown_token_id");
  std::string out;
  for (std::size_t id = 0; id < scores.size(); ++id) {
    const std::int64_t type =
        unknown == id ? kUnknownToken : vocabulary.types[id];
    out += bytes_field(
        1,
        bytes_field(1, vocabulary.spellings[id]) + float_field(2, scores[id]) +
            number_field(3, static_cast<std::uint64_t>(type)));
  }
  return out;
}

} // namespace

bool has_sentencepiece_model(const GgufFile& file) {
  return file.text(kTokenizerPrefix + "model") == "t5";
}

std::string gguf_sentencepiece_model(const GgufFile& file) {
  constexpr std::uint64_t kUnigram = 1;
  const auto flag = [&](std::uint32_t field, const char* key) {
    return number_field(
        field, file.boolean(kTokenizerPrefix + key).value_or(true) ? 1 : 0);
  };
  const auto charsmap =
      file.byte_items(kTokenizerPrefix + "precompiled_charsmap");
  return pieces_of(file) + bytes_field(2, number_field(3, kUnigram)) +
      bytes_field(
             3,
             bytes_field(2, charsmap.value_or("")) +
                 flag(3, "add_space_prefix") +
                 flag(4, "remove_extra_whitespaces"));
}

artifacts::Json gguf_sentencepiece_config(const GgufFile& file) {
  const auto flag = [&](const char* key, bool otherwise) {
    return file.boolean(kTokenizerPrefix + key).value_or(otherwise);
  };
  return {
      {"add_bos_token", flag("add_bos_token", false)},
      {"add_eos_token", flag("add_eos_token", true)}};
}

} // namespace optiq::io
