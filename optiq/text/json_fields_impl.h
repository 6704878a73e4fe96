#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "optiq/artifacts/json.h"

namespace optiq::text {

/**
 * A value of a tokenizer.json with the path that leads to it, so that every
 * complaint names its field: "tokenizer.json: model.vocab is a number, ...".
 */
class JsonField {
 public:
  JsonField(const artifacts::Json& value, std::string path)
      : value_(value), path_(std::move(path)) {}

  /** Member of an object; a null value when it is absent. */
  JsonField operator[](const char* key) const;
  /** Element of an array. */
  JsonField operator[](std::size_t index) const;
  std::size_t array_size() const;
  bool is_null() const {
    return value_.is_null();
  }
  bool has_type(artifacts::Json::value_t type) const {
    return value_.type() == type;
  }
  const std::string& path() const {
    return path_;
  }
  const artifacts::Json& value() const {
    return value_;
  }

  std::string string() const;
  std::string string_or(std::string_view fallback) const;
  /** Not empty, valid UTF-8. */
  std::string non_empty_string() const;
  /** A string of exactly one character. */
  std::string character() const;
  bool boolean() const;
  bool boolean_or(bool fallback) const;
  /** A whole number in [0, limit). */
  std::uint32_t index(std::uint32_t limit) const;

  /** Throws Corrupt: the field is not `expected`. */
  [[noreturn]] void reject(std::string_view expected) const;
  /** Throws Unsupported: what the field asks for is not implemented. */
  [[noreturn]] void refuse(std::string_view what) const;

 private:
  const artifacts::Json& value_;
  std::string path_;
};

} // namespace optiq::text
