#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "optiq/io/gguf/file.h"

/** What the parts of the GGUF reader share. */
namespace optiq::io {

struct GgufValueRow {
  const char* name;
  std::uint64_t bytes; // of one value; the length field of a string
};

const GgufValueRow& row_of(GgufValueType type);

/** Number `index` of an array as it lies in the file. */
template <typename T>
T read_number(std::span<const std::byte> bytes, std::uint64_t index = 0) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

inline std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/** The text as a JSON string with its quotes, or nothing when it is not UTF-8
 * (which JSON cannot hold). */
bool append_json_string(std::string_view text, std::string& out);

} // namespace optiq::io
