#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "optiq/text/chat_template.h"
#include "optiq/text/tokenizer.h"

/**
 * What models are measured on. Two kinds of file:
 *   *.jsonl, *.ndjson, *.json   one JSON object a line, {"question": "..",
 *                               "answer": "..", "value": "36" or 36}; value
 *                               or answer may be missing, other keys are
 *                               ignored, and so are blank lines
 *   anything else               plain UTF-8 text
 */
namespace optiq::eval {

struct DatasetRow {
  std::size_t line = 0; // in the file, from 1
  std::string question;
  std::string answer; // "" when the row has none
  std::string value; // "" when the row has none
};

struct Dataset {
  std::string name; // file name, for messages and results
  std::vector<DatasetRow> rows; // empty for plain text
  std::string text; // empty for rows
};

/** Files above this are refused. */
inline constexpr std::size_t kMaxDatasetBytes = std::size_t{512} << 20;

/** Reads a file; of rows the first `limit` (0 = all). Throws InvalidInput for
 * an empty or too large file, Corrupt for a bad row, naming its line. */
Dataset load_dataset(const std::filesystem::path& path, std::size_t limit);

/** Token ids of one sequence. */
using TokenRow = std::vector<std::int32_t>;

/** Each row as a finished chat: question by the user, answer by the assistant.
 * Throws InvalidInput for a row without an answer. */
std::vector<std::string> render_chats(
    const Dataset& dataset,
    const text::ChatTemplate& chat);

/** Each row's question as a chat that the assistant has to continue. */
std::vector<std::string> render_questions(
    const Dataset& dataset,
    const text::ChatTemplate& chat);

/** Chats as token ids (no special tokens beyond those of the template). */
std::vector<TokenRow> encode_chats(
    const std::vector<std::string>& chats,
    const text::Tokenizer& tokenizer);

/**
 * Text cut into rows of seq_len tokens, each starting with the tokenizer's own
 * prefix (BOS) where it has one; at most `limit` rows (0 = all). What is left
 * at the end makes a shorter row only when it is the only one.
 */
std::vector<TokenRow> chunk_text(
    const Dataset& dataset,
    const text::Tokenizer& tokenizer,
    std::size_t seq_len,
    std::size_t limit);

/**
 * What a data set is measured on: its rows as finished chats, or its text in
 * chunks of seq_len tokens (512 when nobody chose), at most `limit` of them.
 * Text needs no chat template. Throws InvalidInput for a seq_len with rows, and
 * as render_chats and chunk_text do.
 */
std::vector<TokenRow> encode_dataset(
    const Dataset& dataset,
    const text::Tokenizer& tokenizer,
    const text::ChatTemplate* chat,
    std::optional<std::size_t> seq_len,
    std::size_t limit);

/** Throws InvalidInput, naming the two models and the data set, when these are
 * not the same tokens. */
void require_same_tokens(
    const std::vector<TokenRow>& rows,
    const std::vector<TokenRow>& reference_rows,
    const std::string& model,
    const std::string& reference,
    const std::string& data);

/** The number each row wants, in the canonical form of numbers.h: its value,
 * or what follows "####" in its answer. Throws InvalidInput naming the line. */
std::vector<std::string> wanted_numbers(const Dataset& dataset);

} // namespace optiq::eval
