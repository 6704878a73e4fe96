#include <cmath>
#include <unordered_set>

#include "optiq/base/error.h"
#include "optiq/text/protobuf_impl.h"
#include "optiq/text/sentencepiece_model_impl.h"
#include "optiq/text/unicode_impl.h"
#include "optiq/text/vocabulary_impl.h"

namespace optiq::text {
namespace {

using Type = SentencePiece::Type;

// A text is compared with pieces up to the longest at every place.
constexpr std::size_t kMaxPieceBytes = 1024;

/** The byte that "<0x00>" to "<0xFF>" spell. */
std::optional<std::uint8_t> spelled_byte(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') {
    return std::nullopt;
  }
  const std::size_t high = kDigits.find(text[3]);
  const std::size_t low = kDigits.find(text[4]);
  if (high == std::string_view::npos || low == std::string_view::npos) {
    return std::nullopt;
  }
  return static_cast<std::uint8_t>(16 * high + low);
}

SentencePiece read_piece(std::string_view bytes, const std::string& where) {
  SentencePiece piece;
  ProtobufReader reader(bytes, where, "SentencePiece");
  while (const auto field = reader.next()) {
    if (field == 1) {
      piece.text = reader.bytes();
    } else if (field == 2) {
      piece.score = reader.float32();
    } else if (field == 3) {
      const std::uint64_t type = reader.varint();
      if (type < 1 || type > 6) {
        reader.reject(fmt::format("type {}", type), "1 to 6");
      }
      piece.type = static_cast<Type>(type);
    }
  }
  if (piece.text.empty() || !is_valid_utf8(piece.text)) {
    reader.reject("no piece", "UTF-8 that is not empty");
  }
  if (std::isnan(piece.score)) {
    reader.reject("a score that is not a number", "a number");
  }
  if (piece.type == Type::Byte && !spelled_byte(piece.text)) {
    reader.reject("another spelling of a byte", "<0x00> to <0xFF>");
  }
  return piece;
}

void read_trainer_spec(
    std::string_view bytes,
    const std::string& where,
    SentencePieceModel& model) {
  constexpr auto kNegative = std::uint64_t{1} << 63;
  ProtobufReader reader(bytes, where, "TrainerSpec");
  bool has_bos = true;
  bool has_eos = true;
  while (const auto field = reader.next()) {
    switch (*field) {
      case 3: {
        const std::uint64_t kind = reader.varint();
        if (kind < 1 || kind > 4) {
          reader.reject(fmt::format("model_type {}", kind), "1 to 4");
        }
        model.kind = static_cast<SentencePieceModel::Kind>(kind);
        break;
      }
      case 24:
        model.space_as_suffix = reader.boolean();
        break;
      case 35:
        model.byte_ids.reset();
        if (reader.boolean()) {
          model.byte_ids.emplace();
        }
        break;
      case 41:
        has_bos = reader.varint() < kNegative;
        break;
      case 42:
        has_eos = reader.varint() < kNegative;
        break;
      case 46:
        model.bos_piece = reader.bytes();
        break;
      case 47:
        model.eos_piece = reader.bytes();
        break;
      default:
        break;
    }
  }
  if (!has_bos) {
    model.bos_piece.reset();
  }
  if (!has_eos) {
    model.eos_piece.reset();
  }
}

void read_normalizer_spec(
    std::string_view bytes,
    const std::string& where,
    SentencePieceModel& model) {
  ProtobufReader reader(bytes, where, "NormalizerSpec");
  while (const auto field = reader.next()) {
    switch (*field) {
      case 2:
        model.charsmap = reader.bytes();
        break;
      case 3:
        model.add_dummy_prefix = reader.boolean();
        break;
      case 4:
        model.remove_extra_spaces = reader.boolean();
        break;
      case 5:
        model.escape_spaces = reader.boolean();
        break;
      default:
        break;
    }
  }
}

void refuse_denormalizer(std::string_view bytes, const std::string& where) {
  SentencePieceModel denormalizer;
  read_normalizer_spec(bytes, where, denormalizer);
  if (!denormalizer.charsmap.empty()) {
    fail(
        ErrorKind::Unsupported,
        "[read_sentencepiece_model] {}: found a denormalizer, which this "
        "version does not implement. Use a model with another tokenizer",
        where);
  }
}

/** One unknown piece, no piece twice, all bytes when they are asked for. */
void check_pieces(SentencePieceModel& model, const std::string& where) {
  std::unordered_set<std::string_view> texts;
  std::size_t n_bytes = 0;
  std::size_t n_unknown = 0;
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    const SentencePiece& piece = model.pieces[id];
    if (!texts.insert(piece.text).second) {
      fail(
          ErrorKind::Corrupt,
          "[read_sentencepiece_model] {}: piece {}, '{}', is there twice, "
          "expected each once",
          where,
          id,
          piece.text);
    }
    if (piece.type == Type::Byte) {
      ++n_bytes;
      if (model.byte_ids) {
        (*model.byte_ids)[*spelled_byte(piece.text)] =
            static_cast<std::uint32_t>(id);
      }
    }
    if (piece.type == Type::Unknown) {
      ++n_unknown;
      model.unknown_id = static_cast<std::uint32_t>(id);
    }
    if (piece.text.size() > kMaxPieceBytes) {
      fail(
          ErrorKind::Unsupported,
          "[read_sentencepiece_model] {}: piece {} has {} bytes, expected at "
          "most {}",
          where,
          id,
          piece.text.size(),
          kMaxPieceBytes);
    }
  }
  if (n_unknown != 1 || (model.byte_ids && n_bytes != 256)) {
    fail(
        ErrorKind::Corrupt,
        "[read_sentencepiece_model] {}: found {} unknown pieces and {} bytes, "
        "expected 1{}. Is it a SentencePiece model, and complete?",
        where,
        n_unknown,
        n_bytes,
        model.byte_ids ? " and, to fall back to bytes, 256" : "");
  }
}

} // namespace

SentencePieceModel read_sentencepiece_model(
    std::string_view bytes,
    const std::string& where) {
  SentencePieceModel model;
  model.bos_piece = "<s>";
  model.eos_piece = "</s>";
  ProtobufReader reader(bytes, where, "ModelProto");
  while (const auto field = reader.next()) {
    if (field == 1) {
      if (model.pieces.size() == kMaxTokens) {
        reader.reject(
            fmt::format("more than {} pieces", kMaxTokens), "a vocabulary");
      }
      model.pieces.push_back(read_piece(reader.bytes(), where));
    } else if (field == 2) {
      read_trainer_spec(reader.bytes(), where, model);
    } else if (field == 3) {
      read_normalizer_spec(reader.bytes(), where, model);
    } else if (field == 5) {
      refuse_denormalizer(reader.bytes(), where);
    }
  }
  check_pieces(model, where);
  return model;
}

std::optional<PrefixTrie> user_defined_pieces(const SentencePieceModel& model) {
  std::vector<PrefixTrie::Entry> entries;
  for (std::uint32_t id = 0; id < model.pieces.size(); ++id) {
    if (model.pieces[id].type == Type::UserDefined) {
      entries.push_back({model.pieces[id].text, id});
    }
  }
  return entries.empty() ? std::nullopt
                         : std::optional(PrefixTrie(std::move(entries)));
}

} // namespace optiq::text
