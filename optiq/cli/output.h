#pragma once

#include <cstdio>
#include <string>
#include <string_view>
#include <type_traits>

#include <fmt/format.h>

#include "optiq/artifacts/json.h"
#include "optiq/base/printable.h"

/** All that the executable writes to stdout and stderr goes through here. */
namespace optiq::cli {

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
 * terminal as print_lines. */
void print_output(std::string_view text);

/** One JSON document; with an indent of -1 on one line. */
void print_json_document(
    const artifacts::Json& json,
    int indent = 2,
    std::FILE* stream = stdout);

/** All of stdin. Throws InvalidInput when it is longer than max_bytes. */
std::string read_standard_input(std::size_t max_bytes);

} // namespace optiq::cli
