#pragma once

#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

/**
 * All that the commands print. Printing itself never fails: what stdout did not
 * take is found by flush_stdout, which main calls at the end, and when stderr
 * takes nothing, nobody is there to tell.
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

/** Text as it is, to stdout or stderr. */
void write_text(std::FILE* stream, std::string_view text);

template <typename... Args>
void print_output(fmt::format_string<Args...> format, Args&&... args) {
  write_text(stdout, fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
void print_error(fmt::format_string<Args...> format, Args&&... args) {
  write_text(stderr, fmt::format(format, std::forward<Args>(args)...));
}

/** Throws Exhausted or Io when something printed so far did not arrive, and
 * ReaderGone when its reader has closed the pipe. */
void flush_stdout();

/** A result that the user wants in a file (write_named_file), which is none of
 * the model's own. What was printed before comes first where it is stdout's. */
void write_result(
    const std::string& file,
    std::string_view content,
    const std::filesystem::path& model);

} // namespace optiq::cli
