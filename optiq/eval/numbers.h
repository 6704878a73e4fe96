#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace optiq::eval {

/**
 * Numbers in text, in one canonical decimal form ("-1234.5"), so that equal
 * values are equal strings: "1,234.50" is "1234.5", "36.0" is "36", "$5" is
 * "5", "-0" is "0". A minus sign (ASCII or U+2212) belongs to a number when
 * it follows neither a letter, a digit nor a closing bracket, and touches the
 * number or its currency sign.
 */

/** The last number in a text, or nothing. */
std::optional<std::string> last_number(std::string_view text);

/** The number that is the whole text, white space, currency and percent signs
 * aside; nothing when there is other text. */
std::optional<std::string> parse_number(std::string_view text);

} // namespace optiq::eval
