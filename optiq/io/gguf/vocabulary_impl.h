#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "optiq/artifacts/json.h"
#include "optiq/base/error.h"
#include "optiq/io/gguf/file.h"

/** The vocabulary under "tokenizer.ggml." of a GGUF file, which its tokenizer
 * and its special tokens share. tokenizer.cpp has the keys. */
namespace optiq::io {

inline const std::string kTokenizerPrefix = "tokenizer.ggml.";

/** Types of tokens. */
inline constexpr std::int64_t kNormalToken = 1;
inline constexpr std::int64_t kUnknownToken = 2;
inline constexpr std::int64_t kControlToken = 3;
inline constexpr std::int64_t kUserDefinedToken = 4;
inline constexpr std::int64_t kUnusedToken = 5;
inline constexpr std::int64_t kByteToken = 6;

/** The vocabulary of a file, checked. */
struct GgufVocabulary {
  std::vector<std::string_view> spellings;
  std::vector<std::int64_t> types;
  std::vector<std::string> json; // spellings as JSON strings

  /** Whether texts are searched for the token as a whole. */
  bool is_added(std::size_t id) const {
    return is_special(id) || types[id] == kUserDefinedToken;
  }
  /** Whether it is no text of an answer. */
  bool is_special(std::size_t id) const {
    return types[id] == kControlToken || types[id] == kUnknownToken;
  }
};

/** Fails naming the file and the key (without its prefix). */
template <typename... Args>
[[noreturn]] void reject_key(
    ErrorKind kind,
    const GgufFile& file,
    const char* key,
    fmt::format_string<Args...> format,
    Args&&... args) {
  fail(
      kind,
      "[gguf_tokenizer] {}: key '{}{}': {}",
      file.path().string(),
      kTokenizerPrefix,
      key,
      fmt::format(format, std::forward<Args>(args)...));
}

template <typename T>
T required_key(const GgufFile& file, const char* key, std::optional<T> value) {
  if (!value) {
    reject_key(
        ErrorKind::Corrupt,
        file,
        key,
        "is missing, expected a value. Is the file complete?");
  }
  return std::move(*value);
}

/** Throws Corrupt for missing keys, types or texts that contradict. */
GgufVocabulary read_vocabulary(const GgufFile& file);

/** One score a token; of normal ones a number. Throws Corrupt. */
std::vector<float> read_scores(
    const GgufFile& file,
    const GgufVocabulary& vocabulary);

} // namespace optiq::io
