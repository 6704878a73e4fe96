#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "optiq/text/jinja/budget_impl.h"

namespace optiq::text::jinja {

/** One code point of UTF-8 text and where the next begins. Bytes that are not
 * UTF-8 count as one code point each. */
struct CodePoint {
  std::int32_t value;
  std::size_t next;
};
CodePoint code_point_at(std::string_view text, std::size_t at);
/** Where the code point that ends at `at` begins. */
std::size_t code_point_before(std::string_view text, std::size_t at);
void append_utf8(Text& out, std::int32_t code_point);
std::size_t count_code_points(std::string_view text);
/** Byte offset of the code point of that index, at most text.size(). */
std::size_t offset_of(std::string_view text, std::size_t index);
/** Byte offset of each code point, and at last text.size(). */
std::vector<std::size_t> code_point_offsets(std::string_view text);

/** str.isspace of one character. */
bool is_space(std::int32_t code_point);
/** May stand in a repr() without an escape. */
bool is_printable(std::int32_t code_point);
bool is_word(std::int32_t code_point); // of a name: letters, digits, marks, "_"
/** What `\\w` and `\\d` match in Python's regular expressions. */
bool is_word_character(std::int32_t code_point);
bool is_decimal_digit(std::int32_t code_point);

/** str.isalpha and its kin: what every character must be. Lower, Upper and
 * Title ask the cased ones only, and that there is one. */
enum class CharClass {
  AlphaNumeric,
  Alpha,
  Ascii,
  Decimal,
  Digit,
  Identifier,
  Lower,
  Numeric,
  Printable,
  Space,
  Title,
  Upper
};
bool all_are(std::string_view text, CharClass kind);

void write_upper(Text& out, std::string_view text);
void write_lower(Text& out, std::string_view text);
void write_casefolded(Text& out, std::string_view text);
void write_swapped(Text& out, std::string_view text);
/** First character upper-cased, the others lower-cased. */
void write_capitalized(Text& out, std::string_view text);
/** str.title: every run of letters. */
void write_title(Text& out, std::string_view text);
/** The filter `title`: words begin after spaces and "-({[<". */
void write_titled_words(Text& out, std::string_view text);
void write_expanded_tabs(Text& out, std::string_view text, std::int64_t size);
/** markupsafe.escape. */
void write_escaped(Text& out, std::string_view text);
/** repr() of a str, or ascii(). */
void write_quoted(Text& out, std::string_view text, bool ascii = false);

enum class Side { Left, Right, Both };
/** Python's strip family; `chars` null strips white space. */
std::string_view strip(
    std::string_view text,
    Side side,
    const std::string_view* chars = nullptr);

/** Finds a text again and again, in time linear in what is searched. */
class Finder {
 public:
  /** `what` is not empty and outlives this. */
  Finder(std::string_view what, bool from_right);
  /** Offset of the first (or last) occurrence, or npos. */
  std::size_t find(std::string_view text) const;

 private:
  std::string_view what_;
  bool from_right_;
  std::vector<std::uint32_t> border_; // of Knuth, Morris and Pratt; when long
};

/** Gets each part of a split in the order in which it is found: from the right
 * end for the `from_right` forms. */
using OnPart = std::function<void(std::string_view)>;
/** str.split / rsplit on white space, at most max_splits (< 0: all). */
void split_space(
    std::string_view text,
    std::int64_t max_splits,
    bool from_right,
    const OnPart& on_part);
/** str.split / rsplit on a non-empty separator. */
void split(
    std::string_view text,
    std::string_view separator,
    std::int64_t max_splits,
    bool from_right,
    const OnPart& on_part);
void split_lines(std::string_view text, bool keep_ends, const OnPart& on_part);

/** str.replace, at most max_count times (< 0: always). */
void write_replaced(
    Text& out,
    std::string_view text,
    std::string_view old_text,
    std::string_view new_text,
    std::int64_t max_count);

/** Text of a template or a conversation as a message shows it: in quotes, and
 * cut when it is long. */
std::string quote(std::string_view text);
/** Cut when it is long. */
std::string shortened(std::string_view text);

} // namespace optiq::text::jinja
