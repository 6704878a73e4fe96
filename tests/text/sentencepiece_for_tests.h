#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "optiq/text/sentencepiece_model_impl.h"

namespace optiq::text {

/** Writes protobuf, whatever it means. */
inline std::string proto_varint(std::uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) {
    out += static_cast<char>(value | 0x80);
  }
  return out + static_cast<char>(value);
}

inline std::string proto_number(std::uint32_t field, std::uint64_t value) {
  return proto_varint(field << 3) + proto_varint(value);
}

inline std::string proto_bytes(std::uint32_t field, std::string_view bytes) {
  return proto_varint(field << 3 | 2) + proto_varint(bytes.size()) +
      std::string(bytes);
}

inline std::string proto_float(std::uint32_t field, float value) {
  std::string out = proto_varint(field << 3 | 5);
  const auto bits = std::bit_cast<std::uint32_t>(value);
  for (int shift = 0; shift < 32; shift += 8) {
    out += static_cast<char>(bits >> shift & 0xFF);
  }
  return out;
}

struct TestPiece {
  std::string text;
  float score = 0;
  SentencePiece::Type type = SentencePiece::Type::Normal;
};

inline std::string proto_piece(const TestPiece& piece) {
  return proto_bytes(
      1,
      proto_bytes(1, piece.text) + proto_float(2, piece.score) +
          proto_number(3, static_cast<std::uint64_t>(piece.type)));
}

/** <unk>, <s> and </s>, then `pieces`; `specs` are fields of the model behind
 * them. */
inline std::string sentencepiece_model(
    SentencePieceModel::Kind kind,
    const std::vector<TestPiece>& pieces,
    const std::string& specs = "") {
  using Type = SentencePiece::Type;
  std::string out = proto_piece({"<unk>", 0, Type::Unknown}) +
      proto_piece({"<s>", 0, Type::Control}) +
      proto_piece({"</s>", 0, Type::Control});
  for (const TestPiece& piece : pieces) {
    out += proto_piece(piece);
  }
  return out +
      proto_bytes(2, proto_number(3, static_cast<std::uint64_t>(kind))) + specs;
}

/** <0x00> to <0xFF>. */
inline std::vector<TestPiece> byte_pieces() {
  std::vector<TestPiece> pieces;
  for (int byte = 0; byte < 256; ++byte) {
    pieces.push_back(
        {fmt::format("<0x{:02X}>", byte), 0, SentencePiece::Type::Byte});
  }
  return pieces;
}

} // namespace optiq::text
