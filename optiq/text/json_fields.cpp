#include "optiq/base/error.h"
#include "optiq/text/json_fields_impl.h"
#include "optiq/text/unicode_impl.h"

namespace optiq::text {
namespace {

using artifacts::Json;

const Json kAbsent;

/** The value, cut to a length that a message can show. */
std::string excerpt(const Json& value) {
  constexpr std::size_t kLongest = 80;
  if (value.is_object() || value.is_array()) {
    return std::string(value.is_object() ? "an object" : "an array");
  }
  std::string text =
      value.dump(-1, ' ', true, Json::error_handler_t::replace); // ASCII
  if (text.size() > kLongest) {
    text.resize(kLongest);
    text += "...";
  }
  return text;
}

} // namespace

JsonField JsonField::operator[](const char* key) const {
  if (!value_.is_object()) {
    reject("an object");
  }
  const auto found = value_.find(key);
  return {found == value_.end() ? kAbsent : *found, path_ + "." + key};
}

JsonField JsonField::operator[](std::size_t index) const {
  return {value_.at(index), path_ + "[" + std::to_string(index) + "]"};
}

std::size_t JsonField::array_size() const {
  if (!value_.is_array()) {
    reject("an array");
  }
  return value_.size();
}

std::string JsonField::string() const {
  if (!value_.is_string()) {
    reject("a string");
  }
  return value_.get<std::string>();
}

std::string JsonField::string_or(std::string_view fallback) const {
  return is_null() ? std::string(fallback) : string();
}

std::string JsonField::non_empty_string() const {
  std::string text = string();
  if (text.empty()) {
    reject("a string that is not empty");
  }
  return text;
}

std::string JsonField::character() const {
  std::string text = non_empty_string();
  if (step_utf8(text).length != text.size()) {
    reject("one character");
  }
  return text;
}

bool JsonField::boolean() const {
  if (!value_.is_boolean()) {
    reject("true or false");
  }
  return value_.get<bool>();
}

bool JsonField::boolean_or(bool fallback) const {
  return is_null() ? fallback : boolean();
}

std::uint32_t JsonField::index(std::uint32_t limit) const {
  if (!value_.is_number_unsigned() || value_.get<std::uint64_t>() >= limit) {
    reject("a whole number from 0 to " + std::to_string(limit - 1));
  }
  return value_.get<std::uint32_t>();
}

void JsonField::reject(std::string_view expected) const {
  fail(
      ErrorKind::Corrupt,
      "[Tokenizer::parse] {}: found {}, expected {}. Fetch the file again, or "
      "take the one of the original model",
      path_,
      is_null() ? "nothing" : excerpt(value_),
      expected);
}

void JsonField::refuse(std::string_view what) const {
  fail(
      ErrorKind::Unsupported,
      "[Tokenizer::parse] {}: found {}, which this version does not implement. "
      "Use a model with another tokenizer",
      path_,
      what);
}

} // namespace optiq::text
