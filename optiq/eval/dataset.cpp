#include "optiq/eval/dataset.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "optiq/artifacts/json.h"
#include "optiq/base/error.h"
#include "optiq/base/file.h"
#include "optiq/eval/numbers.h"

namespace optiq::eval {
namespace {

using artifacts::Json;

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr std::string_view kAnswerMark = "####";
constexpr std::string_view kSpace = " \t\r\n";
constexpr std::size_t kDefaultSeqLen = 512;

bool is_blank(std::string_view text) {
  return text.find_first_not_of(kSpace) == std::string_view::npos;
}

bool holds_rows(const std::filesystem::path& path) {
  const std::string extension = path.extension().string();
  return extension == ".jsonl" || extension == ".ndjson" ||
      extension == ".json";
}

/** A number may be written as one or as a string. */
std::string read_value(const Json& object, const std::string& where) {
  const auto entry = object.find("value");
  if (entry != object.end() && entry->is_number()) {
    return entry->dump();
  }
  return artifacts::optional_or<std::string>(object, "value", where, "");
}

DatasetRow
parse_row(std::string_view text, std::size_t line, const std::string& name) {
  const std::string where = fmt::format("{}, line {}", name, line);
  const Json object = artifacts::parse_json(text, where);
  if (!object.is_object()) {
    fail(
        ErrorKind::Corrupt,
        "[load_dataset] {}: found {}, expected an object like {{\"question\": "
        "\"..\", \"answer\": \"..\"}}",
        where,
        artifacts::describe(object));
  }
  DatasetRow row{
      .line = line,
      .question = artifacts::required<std::string>(object, "question", where),
      .answer = artifacts::optional_or<std::string>(
          object, "answer", where, std::string()),
      .value = read_value(object, where)};
  if (row.answer.empty() && row.value.empty()) {
    fail(
        ErrorKind::Corrupt,
        "[load_dataset] {}: found neither 'answer' nor 'value', expected one "
        "of them. Is this a file of questions?",
        where);
  }
  return row;
}

std::vector<DatasetRow>
parse_rows(std::string_view text, const std::string& name, std::size_t limit) {
  std::vector<DatasetRow> rows;
  for (std::size_t line = 1; !text.empty(); ++line) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view row = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!is_blank(row)) {
      rows.push_back(parse_row(row, line, name));
    }
    if (limit != 0 && rows.size() == limit) {
      break;
    }
  }
  return rows;
}

std::string render(
    const DatasetRow& row,
    const text::ChatTemplate& chat,
    bool with_answer) {
  Json messages = Json::array();
  messages.push_back({{"role", "user"}, {"content", row.question}});
  if (with_answer) {
    messages.push_back({{"role", "assistant"}, {"content", row.answer}});
  }
  return chat.render_chat(messages, !with_answer);
}

std::optional<std::string> wanted_number(const DatasetRow& row) {
  if (!row.value.empty()) {
    return parse_number(row.value);
  }
  const std::size_t mark = row.answer.rfind(kAnswerMark);
  if (mark == std::string::npos) {
    return std::nullopt;
  }
  return last_number(
      std::string_view(row.answer).substr(mark + kAnswerMark.size()));
}

} // namespace

Dataset load_dataset(const std::filesystem::path& path, std::size_t limit) {
  std::string content = read_text_file(path, kMaxDatasetBytes);
  if (content.starts_with(kByteOrderMark)) {
    content.erase(0, kByteOrderMark.size());
  }
  if (is_blank(content)) {
    fail(
        ErrorKind::InvalidInput,
        "[load_dataset] {}: found an empty file, expected text or rows of "
        "questions",
        path.string());
  }
  Dataset dataset{.name = path.filename().string(), .rows = {}, .text = {}};
  if (holds_rows(path)) {
    dataset.rows = parse_rows(content, path.string(), limit);
  } else {
    dataset.text = std::move(content);
  }
  return dataset;
}

std::vector<std::string> render_chats(
    const Dataset& dataset,
    const text::ChatTemplate& chat) {
  std::vector<std::string> chats;
  for (const DatasetRow& row : dataset.rows) {
    if (row.answer.empty()) {
      fail(
          ErrorKind::InvalidInput,
          "[render_chats] {}, line {}: found no 'answer', expected one to "
          "measure a text by. Use --task exact-match for questions alone",
          dataset.name,
          row.line);
    }
    chats.push_back(render(row, chat, true));
  }
  return chats;
}

std::vector<std::string> render_questions(
    const Dataset& dataset,
    const text::ChatTemplate& chat) {
  std::vector<std::string> chats;
  for (const DatasetRow& row : dataset.rows) {
    chats.push_back(render(row, chat, false));
  }
  return chats;
}

std::vector<TokenRow> encode_chats(
    const std::vector<std::string>& chats,
    const text::Tokenizer& tokenizer) {
  std::vector<TokenRow> rows;
  for (const std::string& chat : chats) {
    rows.push_back(tokenizer.encode(chat, false));
  }
  return rows;
}

std::vector<TokenRow> chunk_text(
    const Dataset& dataset,
    const text::Tokenizer& tokenizer,
    std::size_t seq_len,
    std::size_t limit) {
  const TokenRow prefix = tokenizer.encode("", true);
  if (seq_len < prefix.size() + 2) {
    fail(
        ErrorKind::InvalidInput,
        "[chunk_text] seq_len is {}, expected at least {}",
        seq_len,
        prefix.size() + 2);
  }
  const TokenRow tokens = tokenizer.encode(dataset.text, false);
  const std::size_t step = seq_len - prefix.size();
  std::vector<TokenRow> rows;
  for (std::size_t at = 0; at < tokens.size(); at += step) {
    const std::size_t end = std::min(tokens.size(), at + step);
    const bool is_rest = end - at < step;
    if ((limit != 0 && rows.size() == limit) || (is_rest && !rows.empty())) {
      break;
    }
    TokenRow row = prefix;
    row.insert(row.end(), tokens.begin() + at, tokens.begin() + end);
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<TokenRow> encode_dataset(
    const Dataset& dataset,
    const text::Tokenizer& tokenizer,
    const text::ChatTemplate* chat,
    std::optional<std::size_t> seq_len,
    std::size_t limit) {
  if (dataset.rows.empty()) {
    return chunk_text(
        dataset, tokenizer, seq_len.value_or(kDefaultSeqLen), limit);
  }
  if (seq_len) {
    fail(
        ErrorKind::InvalidInput,
        "[encode_dataset] {}: found rows of questions and a length of chunks "
        "(seq-len), and only plain text is cut into chunks. Leave it out",
        dataset.name);
  }
  return encode_chats(render_chats(dataset, *chat), tokenizer);
}

void require_same_tokens(
    const std::vector<TokenRow>& rows,
    const std::vector<TokenRow>& reference_rows,
    const std::string& model,
    const std::string& reference,
    const std::string& data) {
  if (rows != reference_rows) {
    fail(
        ErrorKind::InvalidInput,
        "[require_same_tokens] {}: its tokenizer and that of {} give different "
        "tokens for {}. KL compares two versions of one model",
        model,
        reference,
        data);
  }
}

std::vector<std::string> wanted_numbers(const Dataset& dataset) {
  std::vector<std::string> wanted;
  for (const DatasetRow& row : dataset.rows) {
    auto number = wanted_number(row);
    if (!number) {
      fail(
          ErrorKind::InvalidInput,
          "[wanted_numbers] {}, line {}: found {}, expected a number there",
          dataset.name,
          row.line,
          row.value.empty() ? "no number after '####' in 'answer'"
                            : "'value' \"" + row.value + "\"");
    }
    wanted.push_back(*std::move(number));
  }
  return wanted;
}

} // namespace optiq::eval
