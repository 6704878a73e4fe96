#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace optiq::text {

/**
 * Reads the fields of one protobuf message, in the order of the bytes
 * (protobuf.dev, "Encoding"): tag = field number << 3 | wire type, then the
 * value. Wire types: 0 varint, 1 eight bytes, 2 varint length and bytes,
 * 5 four bytes; the groups of old files (3, 4) are refused.
 */
class ProtobufReader {
 public:
  /** `name` is the message's in errors, behind `where`. */
  ProtobufReader(
      std::string_view bytes,
      const std::string& where,
      const char* name)
      : rest_(bytes), size_(bytes.size()), where_(where), name_(name) {}

  /** Goes to the next field, past the value of this one; its number, or
   * nothing at the end. Throws Corrupt. */
  std::optional<std::uint32_t> next();

  // The value of the field; Corrupt when it has another wire type.
  std::uint64_t varint() const;
  bool boolean() const {
    return varint() != 0;
  }
  float float32() const;
  std::string_view bytes() const;

  /** Throws Corrupt at the place of the field. */
  [[noreturn]] void reject(const std::string& found, std::string_view expected)
      const;

 private:
  enum class WireType { Varint, Eight, Bytes, Four };
  std::uint64_t read_varint();
  std::string_view read_bytes(std::uint64_t size);
  void require(WireType type, std::string_view expected) const;

  std::string_view rest_;
  std::size_t size_;
  const std::string& where_;
  const char* name_;
  std::uint32_t field_ = 0;
  WireType type_ = WireType::Varint;
  std::uint64_t number_ = 0;
  std::string_view bytes_;
};

} // namespace optiq::text
