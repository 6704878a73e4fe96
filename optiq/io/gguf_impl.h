#pragma once

#include <string>
#include <string_view>

/** What the parts of the GGUF reader share. */
namespace optiq::io {

/** The text as a JSON string with its quotes, or nothing when it is not UTF-8
 * (which JSON cannot hold). */
bool append_json_string(std::string_view text, std::string& out);

} // namespace optiq::io
