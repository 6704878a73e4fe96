#pragma once

#include <optional>
#include <string>

#include "optiq/server/service_state_impl.h"

namespace optiq::server::openai {

/** Throws a RequestError (404) unless the name, if there is one, is that of the
 * served model, or "default". */
void check_model_name(
    const ServiceState& state,
    const std::optional<std::string>& name);

} // namespace optiq::server::openai
