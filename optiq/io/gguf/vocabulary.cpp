#include <unordered_map>

#include "optiq/io/gguf/special_tokens_impl.h"
#include "optiq/io/gguf/values_impl.h"
#include "optiq/io/gguf/vocabulary_impl.h"

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

/** What a token is, whatever number the file gives it: converters got them
 * wrong for tokens that end a turn, and llama.cpp sets that right. */
std::int64_t corrected_type(std::string_view spelling, std::int64_t type) {
  if (spelling.empty()) {
    return kUnusedToken;
  }
  if (is_control_spelling(spelling)) {
    return kControlToken;
  }
  const bool is_known = type >= kNormalToken && type <= kByteToken &&
      (type != kByteToken || is_byte_token(spelling));
  return is_known ? type : kNormalToken;
}

/** A type for each token; all are normal in a file without types. */
std::vector<std::int64_t> read_types(
    const GgufFile& file,
    const std::vector<std::string_view>& spellings) {
  const std::size_t n = spellings.size();
  auto types = file.integers(kTokenizerPrefix + "token_type")
                   .value_or(std::vector<std::int64_t>(n, kNormalToken));
  if (types.size() < n) {
    reject_key(
        ErrorKind::Corrupt,
        file,
        "token_type",
        "found {} types, expected one for each of {} tokens",
        types.size(),
        n);
  }
  types.resize(n);
  for (std::size_t id = 0; id < n; ++id) {
    types[id] = corrected_type(spellings[id], types[id]);
  }
  return types;
}

} // namespace

GgufVocabulary read_vocabulary(const GgufFile& file) {
  GgufVocabulary vocabulary{
      .spellings =
          required_key(file, "tokens", file.texts(kTokenizerPrefix + "tokens")),
      .types = {},
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
  vocabulary.types = read_types(file, vocabulary.spellings);
  std::unordered_map<std::string_view, std::size_t> ids;
  vocabulary.json.resize(n);
  for (std::size_t id = 0; id < n; ++id) {
    const std::string_view spelling = vocabulary.spellings[id];
    if (!append_json_string(spelling, vocabulary.json[id])) {
      reject_key(
          ErrorKind::Corrupt,
          file,
          "tokens",
          "token {} is not UTF-8, expected text",
          id);
    }
    if (spelling.empty()) {
      continue;
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

std::vector<float> read_scores(
    const GgufFile& file,
    const GgufVocabulary& vocabulary) {
  auto scores =
      required_key(file, "scores", file.numbers(kTokenizerPrefix + "scores"));
  if (scores.size() != vocabulary.spellings.size()) {
    reject_key(
        ErrorKind::Corrupt,
        file,
        "scores",
        "found {} scores, expected one for each of {} tokens",
        scores.size(),
        vocabulary.spellings.size());
  }
  for (std::size_t id = 0; id < scores.size(); ++id) {
    if (vocabulary.types[id] == kNormalToken && scores[id] != scores[id]) {
      reject_key(
          ErrorKind::Corrupt,
          file,
          "scores",
          "the score of token {} is not a number",
          id);
    }
  }
  return scores;
}

} // namespace optiq::io
