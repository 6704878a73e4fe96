#pragma once

#include <optional>
#include <string>

#include "optiq/cli/line_reader.h"

namespace optiq::cli {

/** One line, or several: a line that ends with a backslash goes on in the next
 * one; what begins with """ goes on until a line ends with """. An interrupted
 * read gives up what was typed (an empty message); nothing at the end. */
std::optional<std::string> read_message(LineReader& lines);

} // namespace optiq::cli
