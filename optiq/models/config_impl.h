#pragma once

#include <string>
#include <utility>

#include "optiq/artifacts/json.h"
#include "optiq/base/error.h"

namespace optiq::models {

// Sizes beyond any model, so that products of two fit into 64 bits.
inline constexpr int kMaxWidth = 1 << 20;
inline constexpr int kMaxHeads = 1024;
inline constexpr int kMaxHeadDim = 1024;
inline constexpr int kMaxLayers = 1024;
inline constexpr int kMaxVocab = 1 << 22;
inline constexpr int kMaxPositions = 1 << 30;

/** Reads a model's configuration; every number is checked against a range. */
class ConfigReader {
 public:
  /** `function` and `where` begin the messages. */
  ConfigReader(
      const artifacts::Json& json,
      std::string function,
      std::string where)
      : json_(json), function_(std::move(function)), where_(std::move(where)) {}

  const artifacts::Json& json() const {
    return json_;
  }
  /** Reads a part of the same file. */
  ConfigReader at(const artifacts::Json& part) const {
    return {part, function_, where_};
  }
  /** The value at `key`, or nullptr when it is absent or null. */
  const artifacts::Json* find(const char* key) const;

  /** An integer within [1, limit]. Throws Corrupt. */
  int bounded(const char* key, int limit) const;
  int bounded_or(const char* key, int limit, int fallback) const;
  /** An integer within [0, limit]. Throws Corrupt. */
  int count(const char* key, int limit) const {
    const bool is_zero = find(key) != nullptr && json_[key] == 0;
    return is_zero ? 0 : bounded(key, limit);
  }
  /** A finite number above `above`. Throws Corrupt. */
  double number_above(double above, const char* key) const;
  double number_above_or(double above, const char* key, double fallback) const;
  bool flag_or(const char* key, bool fallback) const {
    return artifacts::optional_or<bool>(json_, key, where_, fallback);
  }
  std::string text_or(const char* key, const std::string& fallback) const {
    return artifacts::optional_or<std::string>(json_, key, where_, fallback);
  }

  /** Throws unless the condition holds. */
  void require(bool condition, ErrorKind kind, const std::string& what) const {
    if (!condition) {
      fail(kind, "[{}] {}: {}", function_, where_, what);
    }
  }

 private:
  const artifacts::Json& json_;
  std::string function_;
  std::string where_;
};

} // namespace optiq::models
