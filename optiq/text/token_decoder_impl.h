#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "optiq/text/byte_level_impl.h"
#include "optiq/text/chain_limits_impl.h"
#include "optiq/text/json_fields_impl.h"

namespace optiq::text {

/**
 * The `decoder` of a tokenizer.json: ByteLevel, ByteFallback, Fuse, Replace,
 * Strip, Metaspace, Sequence. A chain of steps, each from tokens to tokens
 * until one fuses them; after it come pieces of one text.
 */
class TokenDecoder {
 public:
  /** Of a field that may be null: then tokens are joined by spaces. */
  static TokenDecoder parse(const JsonField& field);

  /** What a chain remembers between tokens. */
  struct Stream {
    struct StepState {
      std::string held; // bytes or text that cannot be given out yet
      std::size_t stripped = 0; // characters taken from the beginning
      bool started = false;
    };
    std::vector<StepState> steps;
  };
  Stream start() const;
  /** Appends the text that is certain with this token; whole characters. */
  void push(Stream& stream, std::string_view token, std::string& out) const;
  /** Appends the rest. */
  void finish(Stream& stream, std::string& out) const;

  /** The bytes of a token in the middle of a text. */
  std::string token_bytes(std::string_view token) const;

 private:
  enum class Kind {
    Join,
    ByteLevel,
    ByteFallback,
    Fuse,
    Replace,
    Strip,
    Metaspace,
  };
  struct Step {
    Kind kind;
    std::string pattern; // what Replace, Strip and Metaspace look for
    std::string content; // what Replace puts in its place
    std::size_t start = 0; // Strip: at most so many at the beginning
    std::size_t stop = 0; // and at the end
    bool drops_first = false; // Metaspace: in the first token, not " "
    bool fused = false; // sees pieces of one text, not tokens
  };

  void add(const JsonField& field, ChainLimits& limits);
  void emit(
      Stream& stream,
      std::size_t step,
      std::string token,
      std::string& out) const;
  void flush_byte_run(Stream& stream, std::size_t step, std::string& out) const;
  static std::string strip_token(const Step& step, std::string_view token);
  static std::string strip_piece(
      const Step& step,
      Stream::StepState& state,
      std::string_view piece);

  std::vector<Step> steps_;
  ByteLevelAlphabet alphabet_;
};

} // namespace optiq::text
