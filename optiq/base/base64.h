#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace optiq {

/** RFC 4648, with padding, in one line. */
std::string encode_base64(std::string_view bytes);

/** Nothing when `text` is not what encode_base64 writes. */
std::optional<std::string> decode_base64(std::string_view text);

} // namespace optiq
