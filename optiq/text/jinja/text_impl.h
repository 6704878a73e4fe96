#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace optiq::text::jinja {

/** One code point of UTF-8 text and where the next begins. Bytes that are not
 * UTF-8 count as one code point each. */
struct CodePoint {
  std::int32_t value;
  std::size_t next;
};
CodePoint code_point_at(std::string_view text, std::size_t at);
void append_utf8(std::string& out, std::int32_t code_point);
std::size_t count_code_points(std::string_view text);
/** Byte offset of each code point, and at last text.size(). */
std::vector<std::size_t> code_point_offsets(std::string_view text);

/** str.isspace of one character. */
bool is_space(std::int32_t code_point);
/** May stand in a repr() without an escape. */
bool is_printable(std::int32_t code_point);
bool is_word(std::int32_t code_point); // letters, digits, marks, "_"

/** str.isalpha and its kin: what every character must be. Lower and Upper ask
 * the cased ones only, and that there is one. */
enum class CharClass {
  AlphaNumeric,
  Alpha,
  Digit,
  Lower,
  Numeric,
  Space,
  Upper
};
bool all_are(std::string_view text, CharClass kind);

std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
/** First character upper-cased, the others lower-cased. */
std::string capitalize(std::string_view text);
/** str.title (every run of letters) when `by_letters`; else the filter, which
 * begins words after spaces and "-({[<". */
std::string to_title(std::string_view text, bool by_letters);

enum class Side { Left, Right, Both };
/** Python's strip family; `chars` null strips white space. */
std::string_view strip(
    std::string_view text,
    Side side,
    const std::string_view* chars = nullptr);
/** str.split / rsplit on white space, at most max_splits (< 0: all). */
std::vector<std::string_view>
split_space(std::string_view text, std::int64_t max_splits, bool from_right);
/** str.split / rsplit on a non-empty separator. */
std::vector<std::string_view> split(
    std::string_view text,
    std::string_view separator,
    std::int64_t max_splits,
    bool from_right);
std::vector<std::string_view> split_lines(
    std::string_view text,
    bool keep_ends);
/** Bytes that str.replace gives, at most max_count replacements (< 0: all). */
std::size_t replaced_size(
    std::string_view text,
    std::string_view old_text,
    std::string_view new_text,
    std::int64_t max_count);
std::string replace(
    std::string_view text,
    std::string_view old_text,
    std::string_view new_text,
    std::int64_t max_count);
std::string escape_html(std::string_view text);
/** repr() of a str. */
std::string quote(std::string_view text);

} // namespace optiq::text::jinja
