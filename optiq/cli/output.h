#pragma once

#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <string_view>
#include <type_traits>

#include <fmt/format.h>

#include "optiq/artifacts/json.h"
#include "optiq/base/printable.h"

/**
 * All that the executable writes to stdout and stderr goes through here.
 * Printing itself never fails: what stdout did not take is found by
 * flush_stdout, which main calls at the end, and when stderr takes nothing,
 * nobody is there to tell.
 */
namespace optiq::cli {

/** What a reader that went away (`optiq inspect DIR | head -1`) makes of a
 * command: it ends without a word. */
class ReaderGone : public std::exception {};

/** The shell's word for a process that SIGPIPE ended. */
inline constexpr int kReaderGoneExitCode = 141;

/** Fills the places of standard streams that are closed, so that no file gets
 * their numbers; reading and writing there fails as before. */
void hold_standard_streams();

/** Throws Exhausted or Io when something printed so far did not arrive, and
 * ReaderGone when its reader has closed the pipe. */
void flush_stdout();

/** A result that the user wants in a file (write_named_file), which is none of
 * the model's own. What was printed before comes first where it is stdout's. */
void write_result(
    const std::string& file,
    std::string_view content,
    const std::filesystem::path& model);

/** What a value is printed as: text may come from anywhere, and becomes
 * printable. */
template <typename T>
using Shown = std::conditional_t<
    std::is_convertible_v<const T&, std::string_view>,
    std::string,
    T>;

template <typename T>
Shown<T> shown(const T& value) {
  if constexpr (std::is_convertible_v<const T&, std::string_view>) {
    return printable(value);
  } else {
    return value;
  }
}

/** Text as it is, to stdout or stderr. */
void write_text(std::FILE* stream, std::string_view text);

/** A format of ours, whose newlines stay, with values in which those and all
 * other controls are escaped. */
template <typename... Args>
std::string shown_text(
    fmt::format_string<Shown<Args>...> format,
    const Args&... args) {
  return fmt::format(format, shown(args)...);
}

template <typename... Args>
void print(fmt::format_string<Shown<Args>...> format, const Args&... args) {
  write_text(stdout, shown_text(format, args...));
}

template <typename... Args>
void print_error(
    fmt::format_string<Shown<Args>...> format,
    const Args&... args) {
  write_text(stderr, shown_text(format, args...));
}

/** A text of several lines, as help is: newlines and tabs stay. */
void print_lines(std::FILE* stream, std::string_view text);

/** What the next program may read: to stdout as it is, and at once; on a
 * terminal as print_lines. Throws as flush_stdout. */
void print_output(std::string_view text);

/** One JSON document; with an indent of -1 on one line. */
void print_json_document(
    const artifacts::Json& json,
    int indent = 2,
    std::FILE* stream = stdout);

/** All of stdin. Throws InvalidInput when it is longer than max_bytes. */
std::string read_standard_input(std::size_t max_bytes);

} // namespace optiq::cli
