#include <cctype>
#include <optional>

#include "optiq/text/normalizer_impl.h"
#include "optiq/text/token_decoder_impl.h"
#include "optiq/text/unicode_impl.h"

namespace optiq::text {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD"; // U+FFFD

/** The byte that a token of the form <0xNN> stands for. */
std::optional<char> fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>' ||
      std::isxdigit(static_cast<unsigned char>(token[3])) == 0 ||
      std::isxdigit(static_cast<unsigned char>(token[4])) == 0) {
    return std::nullopt;
  }
  return static_cast<char>(
      std::stoi(std::string(token.substr(3, 2)), nullptr, 16));
}

} // namespace

TokenDecoder TokenDecoder::parse(const JsonField& field) {
  TokenDecoder decoder;
  if (field.is_null()) {
    decoder.steps_.push_back({Kind::Join, "", ""});
  } else {
    ChainLimits limits;
    decoder.add(field, limits);
  }
  return decoder;
}

void TokenDecoder::add(const JsonField& field, ChainLimits& limits) {
  limits.add_step(field);
  const JsonField type_field = field["type"];
  const std::string type = type_field.string();
  if (type == "Sequence") {
    const JsonField parts = field["decoders"];
    for (std::size_t i = 0; i < parts.array_size(); ++i) {
      add(parts[i], limits);
    }
    return;
  }
  Step step{Kind::Fuse, "", ""};
  for (const Step& earlier : steps_) {
    step.fused |= earlier.kind == Kind::Fuse || earlier.kind == Kind::ByteLevel;
  }
  constexpr std::uint32_t kLongestStrip = 1u << 16;
  if (type == "ByteLevel") {
    step.kind = Kind::ByteLevel;
  } else if (type == "ByteFallback") {
    step.kind = Kind::ByteFallback;
  } else if (type == "Replace") {
    step.kind = Kind::Replace;
    step.pattern = field["pattern"]["String"].non_empty_string();
    step.content = field["content"].string();
    limits.add_replacement(step.pattern, step.content, field);
  } else if (type == "Strip") {
    step.kind = Kind::Strip;
    step.pattern = field["content"].character();
    step.start = field["start"].index(kLongestStrip);
    step.stop = field["stop"].index(kLongestStrip);
  } else if (type == "Metaspace") {
    step.kind = Kind::Metaspace;
    step.pattern = field["replacement"].character();
    step.drops_first = field["prepend_scheme"].string_or("always") != "never" &&
        field["add_prefix_space"].boolean_or(true);
  } else if (type != "Fuse") {
    type_field.refuse("the decoder " + type);
  }
  const bool works_on_pieces = step.kind == Kind::Fuse ||
      step.kind == Kind::Strip ||
      (step.kind == Kind::Replace &&
       step_utf8(step.pattern).length == step.pattern.size());
  if (step.fused && !works_on_pieces) {
    type_field.refuse("the decoder " + type + " after the tokens were fused");
  }
  steps_.push_back(std::move(step));
}

TokenDecoder::Stream TokenDecoder::start() const {
  return {std::vector<Stream::StepState>(steps_.size())};
}

std::string TokenDecoder::strip_token(
    const Step& step,
    std::string_view token) {
  for (std::size_t n = 0; n < step.start && token.starts_with(step.pattern);
       ++n) {
    token.remove_prefix(step.pattern.size());
  }
  for (std::size_t n = 0; n < step.stop && token.ends_with(step.pattern); ++n) {
    token.remove_suffix(step.pattern.size());
  }
  return std::string(token);
}

/** The part of the text so far that is neither stripped nor may yet be. */
std::string TokenDecoder::strip_piece(
    const Step& step,
    Stream::StepState& state,
    std::string_view piece) {
  while (!state.started && state.stripped < step.start &&
         piece.starts_with(step.pattern)) {
    piece.remove_prefix(step.pattern.size());
    ++state.stripped;
  }
  state.started |= !piece.empty();
  std::string text = state.held.append(piece);
  std::size_t end = text.size();
  for (std::size_t n = 0; n < step.stop &&
       std::string_view(text).substr(0, end).ends_with(step.pattern);
       ++n) {
    end -= step.pattern.size();
  }
  state.held = text.substr(end);
  text.resize(end);
  return text;
}

void TokenDecoder::flush_byte_run(
    Stream& stream,
    std::size_t at,
    std::string& out) const {
  const std::string bytes = std::move(stream.steps[at].held);
  stream.steps[at].held.clear();
  if (is_valid_utf8(bytes)) {
    if (!bytes.empty()) {
      emit(stream, at + 1, bytes, out);
    }
    return;
  }
  // One bad byte spoils its whole run of byte tokens: so does the original.
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    emit(stream, at + 1, std::string(kReplacement), out);
  }
}

void TokenDecoder::emit(
    Stream& stream,
    std::size_t at,
    std::string token,
    std::string& out) const {
  if (at == steps_.size()) {
    out += token;
    return;
  }
  const Step& step = steps_[at];
  Stream::StepState& state = stream.steps[at];
  switch (step.kind) {
    case Kind::Join:
      if (state.started) {
        token.insert(token.begin(), ' ');
      }
      state.started = true;
      break;
    case Kind::ByteLevel: {
      state.held += alphabet_.bytes_of(token).value_or(token);
      token.clear();
      state.held.erase(0, append_lossy(token, state.held, true));
      break;
    }
    case Kind::ByteFallback:
      if (const auto byte = fallback_byte(token)) {
        state.held += *byte;
        return;
      }
      flush_byte_run(stream, at, out);
      break;
    case Kind::Fuse:
      break;
    case Kind::Replace:
      token = replace_all(token, step.pattern, step.content);
      break;
    case Kind::Strip:
      token = step.fused ? strip_piece(step, state, token)
                         : strip_token(step, token);
      break;
    case Kind::Metaspace:
      token = replace_all(
          token, step.pattern, step.drops_first && !state.started ? "" : " ");
      state.started = true;
      break;
  }
  emit(stream, at + 1, std::move(token), out);
}

void TokenDecoder::push(
    Stream& stream,
    std::string_view token,
    std::string& out) const {
  emit(stream, 0, std::string(token), out);
}

void TokenDecoder::finish(Stream& stream, std::string& out) const {
  for (std::size_t at = 0; at < steps_.size(); ++at) {
    if (steps_[at].kind == Kind::ByteFallback) {
      flush_byte_run(stream, at, out);
    } else if (steps_[at].kind == Kind::ByteLevel) {
      std::string rest;
      append_lossy(rest, stream.steps[at].held, false);
      stream.steps[at].held.clear();
      emit(stream, at + 1, std::move(rest), out);
    }
  }
}

std::string TokenDecoder::token_bytes(std::string_view token) const {
  std::string bytes(token);
  for (const Step& step : steps_) {
    switch (step.kind) {
      case Kind::ByteLevel:
        return alphabet_.bytes_of(bytes).value_or(bytes);
      case Kind::ByteFallback:
        if (const auto byte = fallback_byte(bytes)) {
          return std::string(1, *byte);
        }
        break;
      case Kind::Replace:
        bytes = replace_all(bytes, step.pattern, step.content);
        break;
      case Kind::Metaspace:
        bytes = replace_all(bytes, step.pattern, " ");
        break;
      case Kind::Join:
      case Kind::Fuse:
      case Kind::Strip:
        break;
    }
  }
  return bytes;
}

} // namespace optiq::text
