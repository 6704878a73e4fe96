#pragma once

#include <optional>
#include <string_view>

#include "optiq/text/code_point_set_impl.h"

namespace optiq::text {

/** The characters that \p{name} means: a general category (Lu, L, Letter), a
 * script (Han, Hani, Script=Han), a POSIX class (Alnum) or one of the binary
 * properties in unicode_tables.h; case, blanks, '_' and '-' do not count.
 * Nothing for another name. */
std::optional<CodePointSet> find_unicode_property(std::string_view name);

/** \d, \s, \w, \h and the classes [:name:], in lower case. */
std::optional<CodePointSet> find_posix_class(std::string_view name);

/** Its number in unicode_script_names(); behind the last one for none. */
std::uint32_t script_of(std::uint32_t code_point);

} // namespace optiq::text
