// Arrays of metadata whose items need no decoding.
#include <cstring>

#include "optiq/io/gguf.h"

namespace optiq::io {

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
  return std::string_view(
      reinterpret_cast<const char*>(value->bytes.data()), value->bytes.size());
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

} // namespace optiq::io
