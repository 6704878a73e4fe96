#pragma once

#include <limits>
#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "optiq/base/error.h"
#include "optiq/io/gguf/file.h"

/** Reading the numbers of an architecture, each checked against a range. */
namespace optiq::io {

// Sizes beyond any model, so that products of two fit into 64 bits.
inline constexpr std::uint64_t kMaxGgufLayers = 1024;
inline constexpr std::uint64_t kMaxGgufHeads = 1024;
inline constexpr std::uint64_t kMaxGgufWidth = 1u << 20;
inline constexpr std::uint64_t kMaxGgufVocabulary = 4u << 20;
inline constexpr std::uint64_t kMaxGgufPositions =
    std::numeric_limits<std::int32_t>::max();

template <typename... Args>
[[noreturn]] void reject_config(
    ErrorKind kind,
    const GgufFile& file,
    fmt::format_string<Args...> format,
    Args&&... args) {
  fail(
      kind,
      "[gguf_config] {}: {}",
      file.path().string(),
      fmt::format(format, std::forward<Args>(args)...));
}

/** The decimal number that a float32 was rounded from: 1e-05, not
 * 9.999999747378752e-06. */
double shortest_decimal(double value);

/** An integer from 1 to `most`. Throws Corrupt naming `key`. */
int checked_integer(
    const GgufFile& file,
    const std::string& key,
    std::optional<std::uint64_t> value,
    std::uint64_t most);

/** The keys of one architecture. */
class GgufKeys {
 public:
  GgufKeys(const GgufFile& file, const std::string& architecture)
      : file_(file), prefix_(architecture + ".") {}

  const GgufFile& file() const {
    return file_;
  }
  std::string name_of(const char* key) const {
    return prefix_ + key;
  }
  bool has(const char* key) const {
    return file_.has(prefix_ + key);
  }
  /** An integer from 1 to `most`. Throws Corrupt. */
  int integer(const char* key, std::uint64_t most) const;
  int integer_or(const char* key, int fallback, std::uint64_t most) const;
  /** A number above 0. Throws Corrupt. */
  double positive(const char* key) const;
  double positive_or(const char* key, double fallback) const;
  /** The same; 0 counts as missing, as in llama.cpp. */
  double nonzero_or(const char* key, double fallback) const;

  const GgufTensor* find_tensor(const std::string& name) const;

 private:
  const GgufFile& file_;
  std::string prefix_;
};

} // namespace optiq::io
