#include <algorithm>
#include <cctype>
#include <optional>
#include <utility>

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

/** English punctuation without the space before it: the fixed list of the
 * original, in its order. */
std::string clean_up(std::string text) {
  constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},
      {" ?", "?"},
      {" !", "!"},
      {" ,", ","},
      {" ' ", "'"},
      {" n't", "n't"},
      {" 'm", "'m"},
      {" do not", " don't"},
      {" 's", "'s"},
      {" 've", "'ve"},
      {" 're", "'re"},
  };
  for (const auto& [pattern, content] : kRules) {
    text = replace_all(text, pattern, content);
  }
  return text;
}

/** What of a run of bytes is certain: characters, and U+FFFD for each byte that
 * is in none. */
std::string take_characters(std::string& held, bool more_to_come) {
  std::string text;
  while (!held.empty()) {
    const Utf8Step step = step_utf8(held);
    if (step.kind == Utf8Step::Kind::Incomplete && more_to_come) {
      break;
    }
    const bool valid = step.kind == Utf8Step::Kind::Character;
    const std::size_t size = valid ? step.length : 1;
    text += valid ? std::string_view(held).substr(0, size) : kReplacement;
    held.erase(0, size);
  }
  return text;
}

} // namespace

TokenDecoder TokenDecoder::parse(const JsonField& field) {
  TokenDecoder decoder;
  if (field.is_null()) {
    decoder.append({.kind = Kind::Join});
  } else {
    ChainLimits limits;
    decoder.add(field, limits);
  }
  return decoder;
}

TokenDecoder TokenDecoder::byte_level() {
  TokenDecoder decoder;
  decoder.append({.kind = Kind::ByteLevel});
  return decoder;
}

TokenDecoder TokenDecoder::sentencepiece(LeadingMark leading, bool has_bytes) {
  TokenDecoder decoder;
  decoder.append(
      {.kind = Kind::SpaceMark, .pattern = "\u2581", .leading = leading});
  if (has_bytes) {
    decoder.append({.kind = Kind::ByteFallback, .keeps_valid = true});
  }
  return decoder;
}

TokenDecoder::Step TokenDecoder::parse_replace(
    const JsonField& field,
    ChainLimits& limits) {
  Step step{.kind = Kind::Replace, .content = field["content"].string()};
  const JsonField regex = field["pattern"]["Regex"];
  if (!regex.is_null()) {
    step.regex = std::make_shared<PatternRegex>(regex.string(), regex.path());
  } else {
    step.pattern = field["pattern"]["String"].non_empty_string();
  }
  limits.add_replacement(step.regex ? "." : step.pattern, step.content, field);
  return step;
}

TokenDecoder::Step TokenDecoder::parse_step(
    const JsonField& field,
    ChainLimits& limits) {
  constexpr std::uint32_t kLongestStrip = 1u << 16;
  const JsonField type_field = field["type"];
  const std::string type = type_field.string();
  if (type == "ByteLevel") {
    return {.kind = Kind::ByteLevel};
  }
  if (type == "ByteFallback") {
    return {.kind = Kind::ByteFallback};
  }
  if (type == "Fuse") {
    return {.kind = Kind::Fuse};
  }
  if (type == "Replace") {
    return parse_replace(field, limits);
  }
  if (type == "Strip") {
    return {
        .kind = Kind::Strip,
        .pattern = field["content"].character(),
        .start = field["start"].index(kLongestStrip),
        .stop = field["stop"].index(kLongestStrip)};
  }
  if (type == "Metaspace") {
    return {
        .kind = Kind::Metaspace,
        .pattern = field["replacement"].character(),
        .drops_first = field["prepend_scheme"].string_or("always") != "never" &&
            field["add_prefix_space"].boolean_or(true)};
  }
  if (type == "WordPiece") {
    return {
        .kind = Kind::WordPiece,
        .pattern = field["prefix"].string_or("##"),
        .cleans_up = field["cleanup"].boolean_or(true)};
  }
  if (type == "BPEDecoder") {
    return {
        .kind = Kind::WordEnd,
        .pattern = field["suffix"].is_null()
            ? "</w>"
            : field["suffix"].non_empty_string()};
  }
  if (type == "CTC") {
    return {
        .kind = Kind::Ctc,
        .pattern = field["pad_token"].non_empty_string(),
        .content = field["word_delimiter_token"].non_empty_string(),
        .cleans_up = field["cleanup"].boolean_or(true)};
  }
  type_field.refuse("the decoder " + type);
}

void TokenDecoder::add(const JsonField& field, ChainLimits& limits) {
  limits.add_step(field);
  if (field["type"].string() != "Sequence") {
    append(parse_step(field, limits));
    return;
  }
  const JsonField parts = field["decoders"];
  for (std::size_t i = 0; i < parts.array_size(); ++i) {
    add(parts[i], limits);
  }
}

void TokenDecoder::append(Step step) {
  for (const Step& earlier : steps_) {
    step.fused |= earlier.kind == Kind::Fuse || earlier.kind == Kind::ByteLevel;
  }
  const bool takes_pieces = step.kind == Kind::Fuse ||
      step.kind == Kind::Strip || step.kind == Kind::Metaspace ||
      (step.kind == Kind::Replace && !step.regex &&
       step_utf8(step.pattern).length == step.pattern.size());
  step.collects = step.fused && !takes_pieces;
  steps_.push_back(std::move(step));
}

bool TokenDecoder::has_byte_level() const {
  return std::any_of(steps_.begin(), steps_.end(), [](const Step& step) {
    return step.kind == Kind::ByteLevel;
  });
}

TokenDecoder::Stream TokenDecoder::start() const {
  return {std::vector<Stream::StepState>(steps_.size())};
}

std::string TokenDecoder::replace(const Step& step, std::string_view token)
    const {
  if (!step.regex) {
    return replace_all(token, step.pattern, step.content);
  }
  PatternRun run(token.size());
  return step.regex->replace_all(token, step.content, run);
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

std::string
TokenDecoder::word_piece(const Step& step, std::string token, bool is_first) {
  if (!is_first && token.starts_with(step.pattern)) {
    token.erase(0, step.pattern.size());
  } else if (!is_first) {
    token.insert(token.begin(), ' ');
  }
  return step.cleans_up ? clean_up(std::move(token)) : token;
}

std::string TokenDecoder::unpad(const Step& step, std::string_view token) {
  std::string text = replace_all(token, step.pattern, "");
  return step.cleans_up
      ? replace_all(clean_up(std::move(text)), step.content, " ")
      : text;
}

std::string TokenDecoder::space_marks(
    const Step& step,
    Stream::StepState& state,
    std::string_view token) {
  if (!state.started && step.leading != LeadingMark::Kept &&
      token.starts_with(step.pattern)) {
    token.remove_prefix(step.pattern.size());
    state.started = step.leading == LeadingMark::DroppedOnce;
  }
  state.started |= !token.empty();
  return replace_all(token, step.pattern, " ");
}

/** The token that goes on, if one does, in a step that makes one of one. */
std::optional<std::string> TokenDecoder::transform(
    const Step& step,
    Stream::StepState& state,
    std::string token) const {
  const auto is_first = [&] { return !std::exchange(state.started, true); };
  switch (step.kind) {
    case Kind::Join:
      return is_first() ? token : " " + token;
    case Kind::ByteLevel: {
      state.held += alphabet_.bytes_of(token).value_or(token);
      std::string text;
      state.held.erase(0, append_lossy(text, state.held, true));
      return text;
    }
    case Kind::Replace:
      return replace(step, token);
    case Kind::Strip:
      return step.fused ? strip_piece(step, state, token)
                        : strip_token(step, token);
    case Kind::Metaspace: {
      const bool drops = step.drops_first && (step.fused || is_first());
      return replace_all(token, step.pattern, drops ? "" : " ");
    }
    case Kind::WordPiece:
      return word_piece(step, std::move(token), is_first());
    case Kind::WordEnd: { // which token is the last, only the end tells
      const std::string last = std::exchange(state.held, std::move(token));
      return is_first() ? std::nullopt
                        : std::optional(replace_all(last, step.pattern, " "));
    }
    case Kind::Ctc: {
      const bool repeats = !is_first() && state.held == token;
      const std::string text = repeats ? "" : unpad(step, token);
      state.held = std::move(token);
      return text.empty() ? std::nullopt : std::optional(text);
    }
    case Kind::SpaceMark:
      return space_marks(step, state, token);
    case Kind::ByteFallback: // makes several of several
    case Kind::Fuse:
      break;
  }
  return token;
}

void TokenDecoder::run(
    Stream& stream,
    std::size_t at,
    std::string token,
    std::string& out) const {
  const Step& step = steps_[at];
  Stream::StepState& state = stream.steps[at];
  if (step.kind == Kind::ByteFallback) {
    if (const auto byte = fallback_byte(token)) {
      state.held += *byte;
      if (step.keeps_valid) {
        emit(stream, at + 1, take_characters(state.held, true), out);
      }
      return;
    }
    flush(stream, at, out);
  }
  if (auto next = transform(step, state, std::move(token))) {
    emit(stream, at + 1, std::move(*next), out);
  }
}

/** Gives a token to a step; what the step must see whole is collected. */
void TokenDecoder::emit(
    Stream& stream,
    std::size_t at,
    std::string token,
    std::string& out) const {
  if (at == steps_.size()) {
    out += token;
  } else if (steps_[at].collects) {
    stream.steps[at].held += token;
  } else {
    run(stream, at, std::move(token), out);
  }
}

/** Gives out what a step has held back. */
void TokenDecoder::flush(Stream& stream, std::size_t at, std::string& out)
    const {
  const Step& step = steps_[at];
  const bool started = stream.steps[at].started;
  std::string held = std::exchange(stream.steps[at].held, {});
  if (step.kind == Kind::WordEnd && started) {
    emit(stream, at + 1, replace_all(held, step.pattern, ""), out);
  } else if (step.kind == Kind::ByteLevel && !held.empty()) {
    std::string text;
    append_lossy(text, held, false);
    emit(stream, at + 1, std::move(text), out);
  } else if (step.kind == Kind::ByteFallback && !held.empty()) {
    if (step.keeps_valid || is_valid_utf8(held)) {
      emit(stream, at + 1, take_characters(held, false), out);
      return;
    }
    // One bad byte spoils its whole run of byte tokens: so does the original.
    for (std::size_t i = 0; i < held.size(); ++i) {
      emit(stream, at + 1, std::string(kReplacement), out);
    }
  }
}

void TokenDecoder::push(
    Stream& stream,
    std::string_view token,
    std::string& out) const {
  emit(stream, 0, std::string(token), out);
}

void TokenDecoder::finish(Stream& stream, std::string& out) const {
  for (std::size_t at = 0; at < steps_.size(); ++at) {
    if (steps_[at].collects) {
      run(stream, at, std::exchange(stream.steps[at].held, {}), out);
    }
    flush(stream, at, out);
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
        bytes = replace(step, bytes);
        break;
      case Kind::Metaspace:
      case Kind::WordEnd:
      case Kind::SpaceMark:
        bytes = replace_all(bytes, step.pattern, " ");
        break;
      case Kind::WordPiece:
        bytes = word_piece(step, std::move(bytes), false);
        break;
      case Kind::Ctc:
        bytes = unpad(step, bytes);
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
