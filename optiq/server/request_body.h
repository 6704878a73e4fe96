#pragma once

#include <string>
#include <string_view>

#include "optiq/artifacts/json.h"
#include "optiq/server/schema.h"

namespace optiq::server {

/**
 * Parses the body of a request: JSON as RFC 8259 has it (UTF-8, no NaN, no lone
 * surrogates), at most 200 levels deep, no name twice in one object, no zero
 * character in a string. Throws a RequestError (400); `where` names what is
 * asked.
 */
artifacts::Json parse_body(std::string_view body, const std::string& where);

/** Members of a body that are none of the schema's, separated by commas: what
 * is ignored. Names that are no words are counted instead. */
std::string ignored_members(const artifacts::Json& body, const Schema& schema);

} // namespace optiq::server
