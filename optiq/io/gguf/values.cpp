// Typed access to the metadata of a GGUF file.
#include <cstring>

#include "optiq/base/error.h"
#include "optiq/io/gguf/file.h"
#include "optiq/io/gguf/values_impl.h"

namespace optiq::io {

const GgufFile::Value* GgufFile::find(const std::string& key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

void GgufFile::fail_value(
    const std::string& key,
    const Value& found,
    const char* expected) const {
  fail(
      ErrorKind::Corrupt,
      "[GgufFile] {}: key '{}': found {}{}, expected {}",
      path().string(),
      key,
      found.is_array ? "an array of " : "a value of type ",
      row_of(found.type).name,
      expected);
}

std::optional<std::string> GgufFile::text(const std::string& key) const {
  const Value* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (value->is_array || value->type != GgufValueType::String) {
    fail_value(key, *value, "a String");
  }
  const std::string_view text = as_text(std::span(value->bytes).subspan(8));
  std::string json;
  if (!append_json_string(text, json)) {
    fail_value(key, *value, "UTF-8");
  }
  return std::string(text);
}

std::optional<bool> GgufFile::boolean(const std::string& key) const {
  const Value* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (value->is_array || value->type != GgufValueType::Bool) {
    fail_value(key, *value, "a Bool");
  }
  return read_number<std::uint8_t>(value->bytes) == 1;
}

std::optional<std::uint64_t> GgufFile::integer(const std::string& key) const {
  const Value* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_array) {
    switch (value->type) {
      case GgufValueType::UInt8:
        return read_number<std::uint8_t>(value->bytes);
      case GgufValueType::UInt16:
        return read_number<std::uint16_t>(value->bytes);
      case GgufValueType::UInt32:
        return read_number<std::uint32_t>(value->bytes);
      case GgufValueType::UInt64:
        return read_number<std::uint64_t>(value->bytes);
      case GgufValueType::Int32:
        if (read_number<std::int32_t>(value->bytes) >= 0) {
          return read_number<std::uint32_t>(value->bytes);
        }
        break;
      default:
        break;
    }
  }
  fail_value(key, *value, "an integer that is not negative");
}

std::optional<double> GgufFile::number(const std::string& key) const {
  const Value* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (value->is_array ||
      (value->type != GgufValueType::Float32 &&
       value->type != GgufValueType::Float64)) {
    fail_value(key, *value, "a Float32 or Float64");
  }
  return value->type == GgufValueType::Float32
      ? static_cast<double>(read_number<float>(value->bytes))
      : read_number<double>(value->bytes);
}

std::optional<std::vector<std::string_view>> GgufFile::texts(
    const std::string& key) const {
  const Value* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_array || value->type != GgufValueType::String) {
    fail_value(key, *value, "an array of String");
  }
  std::vector<std::string_view> texts;
  texts.reserve(value->count);
  std::span<const std::byte> rest = value->bytes;
  for (std::uint64_t i = 0; i < value->count; ++i) {
    const auto n = read_number<std::uint64_t>(rest);
    texts.push_back(as_text(rest.subspan(8, n)));
    rest = rest.subspan(8 + n);
  }
  return texts;
}

std::optional<std::vector<std::int64_t>> GgufFile::integers(
    const std::string& key) const {
  const Value* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_array ||
      (value->type != GgufValueType::Int32 &&
       value->type != GgufValueType::UInt32 &&
       value->type != GgufValueType::Bool)) {
    fail_value(key, *value, "an array of Int32, UInt32 or Bool");
  }
  std::vector<std::int64_t> items(value->count);
  for (std::uint64_t i = 0; i < value->count; ++i) {
    items[i] = value->type == GgufValueType::Int32
        ? std::int64_t{read_number<std::int32_t>(value->bytes, i)}
        : value->type == GgufValueType::UInt32
        ? std::int64_t{read_number<std::uint32_t>(value->bytes, i)}
        : std::int64_t{value->bytes[i] != std::byte{0}};
  }
  return items;
}

std::optional<std::string_view> GgufFile::byte_items(
    const std::string& key) const {
  const Value* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_array ||
      (value->type != GgufValueType::Int8 &&
       value->type != GgufValueType::UInt8)) {
    fail_value(key, *value, "an array of Int8 or UInt8");
  }
  return as_text(value->bytes);
}

std::optional<std::vector<float>> GgufFile::numbers(
    const std::string& key) const {
  const Value* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_array || value->type != GgufValueType::Float32) {
    fail_value(key, *value, "an array of Float32");
  }
  std::vector<float> items(value->count);
  std::memcpy(items.data(), value->bytes.data(), value->bytes.size());
  return items;
}

std::vector<std::string> GgufFile::keys(const std::string& prefix) const {
  std::vector<std::string> keys;
  for (auto at = values_.lower_bound(prefix);
       at != values_.end() && at->first.starts_with(prefix);
       ++at) {
    keys.push_back(at->first);
  }
  return keys;
}

} // namespace optiq::io
