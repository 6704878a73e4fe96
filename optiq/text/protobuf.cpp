#include <bit>

#include "optiq/base/error.h"
#include "optiq/text/protobuf_impl.h"

namespace optiq::text {
namespace {

std::uint64_t little_endian(std::string_view bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = bytes.size(); i-- > 0;) {
    value = value << 8 | static_cast<unsigned char>(bytes[i]);
  }
  return value;
}

} // namespace

void ProtobufReader::reject(const std::string& found, std::string_view expected)
    const {
  fail(
      ErrorKind::Corrupt,
      "[ProtobufReader] {}: {} field {} before byte {}: found {}, expected {}. "
      "Is it a SentencePiece model, and complete?",
      where_,
      name_,
      field_,
      size_ - rest_.size(),
      found,
      expected);
}

std::uint64_t ProtobufReader::read_varint() {
  std::uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (rest_.empty()) {
      reject("the end", "a number");
    }
    const auto byte = static_cast<unsigned char>(rest_[0]);
    rest_.remove_prefix(1);
    value |= std::uint64_t{byte & 0x7Fu} << shift;
    if (byte < 0x80) {
      return value;
    }
  }
  reject("a number of more than 64 bits", "one of at most 10 bytes");
}

std::string_view ProtobufReader::read_bytes(std::uint64_t size) {
  if (size > rest_.size()) {
    reject(
        fmt::format("{} of {} bytes", rest_.size(), size), "the whole value");
  }
  const std::string_view bytes = rest_.substr(0, size);
  rest_.remove_prefix(size);
  return bytes;
}

std::optional<std::uint32_t> ProtobufReader::next() {
  if (rest_.empty()) {
    return std::nullopt;
  }
  const std::uint64_t tag = read_varint();
  const std::uint64_t field = tag >> 3;
  if (field == 0 || field >= 1u << 29) {
    reject(fmt::format("the tag {}", tag), "a field from 1 to 2^29 - 1");
  }
  field_ = static_cast<std::uint32_t>(field);
  switch (tag & 7) {
    case 0:
      type_ = WireType::Varint;
      number_ = read_varint();
      break;
    case 1:
      type_ = WireType::Eight;
      number_ = little_endian(read_bytes(8));
      break;
    case 2:
      type_ = WireType::Bytes;
      bytes_ = read_bytes(read_varint());
      break;
    case 5:
      type_ = WireType::Four;
      number_ = little_endian(read_bytes(4));
      break;
    default:
      reject(fmt::format("wire type {}", tag & 7), "0, 1, 2 or 5");
  }
  return field_;
}

void ProtobufReader::require(WireType type, std::string_view expected) const {
  if (type_ != type) {
    reject("a value of another wire type", expected);
  }
}

std::uint64_t ProtobufReader::varint() const {
  require(WireType::Varint, "a number");
  return number_;
}

float ProtobufReader::float32() const {
  require(WireType::Four, "four bytes");
  return std::bit_cast<float>(static_cast<std::uint32_t>(number_));
}

std::string_view ProtobufReader::bytes() const {
  require(WireType::Bytes, "bytes");
  return bytes_;
}

} // namespace optiq::text
