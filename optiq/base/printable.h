#pragma once

#include <string>
#include <string_view>

namespace optiq {

/**
 * Text of a file, a network or a path as a terminal may get it: control
 * characters (C0 with newline and tab, DEL, C1), what changes the direction of
 * text or breaks a line unseen (bidirectional controls, U+2028, U+2029) and
 * bytes that are not UTF-8 become \n, \t, \r, \x1b, \u202e. For the eye: a
 * backslash stays one backslash.
 */
std::string printable(std::string_view text);

/** As printable, but newlines and tabs stay: a text of several lines. */
std::string printable_lines(std::string_view text);

/** Valid UTF-8: bytes that are not become \xe9, as in printable. */
std::string escape_invalid_utf8(std::string_view text);

} // namespace optiq
