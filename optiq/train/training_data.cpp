#include "optiq/train/training_data.h"

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <utility>

#include "optiq/artifacts/json.h"
#include "optiq/base/error.h"
#include "optiq/base/file.h"
#include "optiq/base/hash.h"

namespace optiq::train {
namespace {

using artifacts::Json;

constexpr const char* kFunction = "load_examples";
constexpr std::size_t kMaxBytes = std::size_t{2} << 30;
constexpr std::string_view kSpace = " \t\r\n";

/** Tokens, and which of them are to be learned. */
struct MarkedTokens {
  std::vector<std::int32_t> tokens;
  std::vector<bool> is_learned;

  void append(const std::vector<std::int32_t>& more, std::size_t n_learned) {
    tokens.insert(tokens.end(), more.begin(), more.end());
    is_learned.resize(is_learned.size() + n_learned, true);
    is_learned.resize(tokens.size(), false);
  }
};

/** A part of a rendered conversation. */
struct Piece {
  std::string text;
  bool is_answer = false;
};

/**
 * The conversation cut where answers begin and end: what the template renders
 * of the messages before an answer, ready for it, begins what it renders with
 * it, and that begins the whole.
 */
std::vector<Piece> cut(
    const Json& messages,
    const Json& tools,
    const text::ChatTemplate& chat,
    const std::string& where) {
  const std::string whole = chat.render_chat(messages, false, tools);
  std::vector<Piece> pieces;
  std::string done;
  const auto move_to = [&](std::string next, bool is_answer) {
    if (!next.starts_with(done) || !whole.starts_with(next)) {
      fail(
          ErrorKind::InvalidInput,
          "[{}] {}: the chat template writes earlier turns otherwise when "
          "later ones follow, so that an answer is not where it was generated. "
          "Train on the last answer, with the conversation cut behind it",
          kFunction,
          where);
    }
    pieces.push_back({next.substr(done.size()), is_answer});
    done = std::move(next);
  };
  Json before = Json::array();
  for (const Json& message : messages) {
    const bool is_answer = message.at("role") == "assistant";
    if (is_answer) {
      move_to(chat.render_chat(before, true, tools), false);
    }
    before.push_back(message);
    if (is_answer) {
      move_to(chat.render_chat(before, false, tools), true);
    }
  }
  if (done != whole) {
    pieces.push_back({whole.substr(done.size())});
  }
  return pieces;
}

/** The last answer alone: what comes before it is rendered as it is there. */
std::vector<Piece> cut_last(
    const Json& messages,
    const Json& tools,
    const text::ChatTemplate& chat,
    const std::string& where) {
  Json before = messages;
  while (!before.empty() && before.back().at("role") != "assistant") {
    before.erase(before.size() - 1);
  }
  if (before.empty()) {
    return {};
  }
  const std::string whole = chat.render_chat(before, false, tools);
  before.erase(before.size() - 1);
  const std::string prompt = chat.render_chat(before, true, tools);
  if (!whole.starts_with(prompt)) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] {}: the chat template writes the prompt otherwise when an answer "
        "follows, so that it is not what the model answers to",
        kFunction,
        where);
  }
  return {{prompt}, {whole.substr(prompt.size()), true}};
}

/** Tokens of an answer up to the last special one; all where there is none. */
std::size_t learned_tokens(
    const std::vector<std::int32_t>& tokens,
    const text::Tokenizer& tokenizer) {
  for (std::size_t n = tokens.size(); n > 0; --n) {
    if (tokenizer.is_special(tokens[n - 1])) {
      return n;
    }
  }
  return tokens.size();
}

void check_messages(const Json& messages, const std::string& where) {
  bool is_good = messages.is_array() && !messages.empty();
  for (const Json& message : messages) {
    is_good = is_good && message.is_object() && message.contains("role") &&
        message["role"].is_string() &&
        (message.contains("content") || message.contains("tool_calls"));
  }
  if (!is_good) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] {}: messages: found {}, expected a list of objects with a role "
        "and content or tool_calls",
        kFunction,
        where,
        artifacts::describe(messages));
  }
}

MarkedTokens encode_messages(
    const Json& messages,
    const Json& tools,
    const TrainingEncoder& encoder,
    LearnedPart learned,
    const std::string& where) {
  check_messages(messages, where);
  if (!encoder.chat) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] {}: found a conversation, and the model has no chat template. "
        "Give texts",
        kFunction,
        where);
  }
  const std::vector<Piece> pieces = learned == LearnedPart::LastAnswer
      ? cut_last(messages, tools, *encoder.chat, where)
      : cut(messages, tools, *encoder.chat, where);
  MarkedTokens marked;
  for (const Piece& piece : pieces) {
    const auto tokens = encoder.tokenizer->encode(piece.text, false);
    const std::size_t n_learned = piece.is_answer
        ? learned_tokens(tokens, *encoder.tokenizer)
        : (learned == LearnedPart::Everything ? tokens.size() : 0);
    marked.append(tokens, n_learned);
  }
  return marked;
}

MarkedTokens encode_text(
    const std::string& text,
    const TrainingEncoder& encoder) {
  MarkedTokens marked;
  auto tokens = encoder.tokenizer->encode(text, true);
  if (encoder.end_of_text) {
    tokens.push_back(*encoder.end_of_text);
  }
  marked.append(tokens, tokens.size());
  return marked;
}

MarkedTokens encode_line(
    const Json& line,
    const TrainingEncoder& encoder,
    LearnedPart learned,
    const std::string& where) {
  if (line.is_object() && line.contains("messages")) {
    const auto tools = line.find("tools");
    return encode_messages(
        line["messages"],
        tools == line.end() ? Json(nullptr) : *tools,
        encoder,
        learned,
        where);
  }
  if (line.is_object() && line.contains("prompt")) {
    const Json messages = {
        {{"role", "user"},
         {"content", artifacts::required<std::string>(line, "prompt", where)}},
        {{"role", "assistant"},
         {"content",
          artifacts::required<std::string>(line, "completion", where)}}};
    return encode_messages(messages, nullptr, encoder, learned, where);
  }
  if (line.is_object() && line.contains("text")) {
    return encode_text(
        artifacts::required<std::string>(line, "text", where), encoder);
  }
  fail(
      ErrorKind::InvalidInput,
      "[{}] {}: found {}, expected an object with 'messages', 'prompt' and "
      "'completion', or 'text'",
      kFunction,
      where,
      artifacts::describe(line));
}

template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

/** Row t is to be followed by token t + 1. */
Example make_example(
    const MarkedTokens& marked,
    int max_tokens,
    const std::string& where) {
  Example example;
  bool learns = false;
  const std::size_t n = std::min<std::size_t>(marked.tokens.size(), max_tokens);
  for (std::size_t t = 0; t + 1 < n; ++t) {
    example.tokens.push_back(marked.tokens[t]);
    example.labels.push_back(marked.tokens[t + 1]);
    example.weights.push_back(marked.is_learned[t + 1] ? 1.f : 0.f);
    learns = learns || marked.is_learned[t + 1];
  }
  if (!learns) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] {}: found nothing to learn in its {} tokens (at most {} are "
        "used), expected an answer or a text. Remove the line or allow longer "
        "ones",
        kFunction,
        where,
        marked.tokens.size(),
        max_tokens);
  }
  return example;
}

} // namespace

ExampleSet load_examples(
    const std::filesystem::path& path,
    const TrainingEncoder& encoder,
    const TrainingDataOptions& options) {
  const std::string content = read_text_file(path, kMaxBytes);
  std::string_view rest = content;
  ExampleSet set;
  for (std::size_t number = 1; !rest.empty(); ++number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    if (line.find_first_not_of(kSpace) == std::string_view::npos) {
      continue;
    }
    const std::string where = fmt::format("{}, line {}", path.string(), number);
    const MarkedTokens marked = encode_line(
        artifacts::parse_json(line, where), encoder, options.learned, where);
    set.examples.push_back(make_example(marked, options.max_tokens, where));
    set.n_cut +=
        std::cmp_greater(marked.tokens.size(), options.max_tokens) ? 1 : 0;
  }
  if (set.examples.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] {}: found no lines, expected examples to train on",
        kFunction,
        path.string());
  }
  return set;
}

std::string hash_of(std::span<const Example> examples) {
  Sha256 hash;
  for (const Example& example : examples) {
    const std::vector<std::uint64_t> size{example.tokens.size()};
    hash.update(bytes_of(size))
        .update(bytes_of(example.tokens))
        .update(bytes_of(example.labels))
        .update(bytes_of(example.weights));
  }
  return hash.hex_digest();
}

} // namespace optiq::train
