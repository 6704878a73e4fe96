#pragma once

#include <array>
#include <utility>

#include "optiq/text/jinja/builtins_impl.h"

namespace optiq::text::jinja {

using NamedTable = std::pair<const char*, const BuiltinTable*>;

/** All builtins of templates, by kind. */
inline std::array<NamedTable, 11> builtin_tables() {
  return {{
      {"filter", &filters()},
      {"test", &tests()},
      {"global", &globals()},
      {"str", &string_methods()},
      {"list", &list_methods()},
      {"tuple", &tuple_methods()},
      {"dict", &dict_methods()},
      {"int", &integer_methods()},
      {"float", &float_methods()},
      {"loop", &loop_methods()},
      {"cycler", &cycler_methods()},
  }};
}

} // namespace optiq::text::jinja
