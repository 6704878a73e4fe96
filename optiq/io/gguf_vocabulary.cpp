#include <unordered_map>

#include "optiq/io/gguf_impl.h"
#include "optiq/io/gguf_vocabulary_impl.h"

namespace optiq::io {
namespace {

constexpr std::size_t kMaxTokens = 4u << 20;

/** Whether a spelling is "<0x00>" to "<0xFF>". */
bool is_byte_token(std::string_view spelling) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  return spelling.size() == 6 && spelling.starts_with("<0x") &&
      spelling[5] == '>' &&
      kDigits.find(spelling[3]) != std::string_view::npos &&
      kDigits.find(spelling[4]) != std::string_view::npos;
}

} // namespace

GgufVocabulary read_vocabulary(const GgufFile& file) {
  GgufVocabulary vocabulary{
      .spellings =
          required_key(file, "tokens", file.texts(kTokenizerPrefix + "tokens")),
      .types = required_key(
          file, "token_type", file.integers(kTokenizerPrefix + "token_type")),
      .json = {}};
  const std::size_t n = vocabulary.spellings.size();
  if (n == 0 || n > kMaxTokens) {
    reject_key(
        ErrorKind::Corrupt,
        file,
        "tokens",
        "found {} tokens, expected 1 to {}",
        n,
        kMaxTokens);
  }
  if (vocabulary.types.size() != n) {
    reject_key(
        ErrorKind::Corrupt,
        file,
        "token_type",
        "found {} types, expected one for each of {} tokens",
        vocabulary.types.size(),
        n);
  }
  std::unordered_map<std::string_view, std::size_t> ids;
  vocabulary.json.resize(n);
  for (std::size_t id = 0; id < n; ++id) {
    const std::string_view spelling = vocabulary.spellings[id];
    const std::int64_t type = vocabulary.types[id];
    if (type < kNormalToken || type > kByteToken ||
        (type == kByteToken && !is_byte_token(spelling))) {
      reject_key(
          ErrorKind::Corrupt,
          file,
          "token_type",
          "token {} has type {}, expected 1 to 6, and 6 for <0x00> to <0xFF> "
          "only",
          id,
          type);
    }
    if (!append_json_string(spelling, vocabulary.json[id])) {
      reject_key(
          ErrorKind::Corrupt,
          file,
          "tokens",
          "token {} is not UTF-8, expected text",
          id);
    }
    if (const auto [at, is_new] = ids.emplace(spelling, id); !is_new) {
      reject_key(
          ErrorKind::Corrupt,
          file,
          "tokens",
          "tokens {} and {} are both {}, expected each once",
          at->second,
          id,
          vocabulary.json[id]);
    }
  }
  return vocabulary;
}

} // namespace optiq::io
