#pragma once

#include <optional>
#include <vector>

#include "optiq/artifacts/json.h"
#include "optiq/text/jinja/syntax_impl.h"

namespace optiq::text::jinja {

/** The members of an object that a template names, by its symbols. */
std::vector<std::optional<Value>> variables_of(
    const Template& parsed,
    const artifacts::Json& variables);

} // namespace optiq::text::jinja
