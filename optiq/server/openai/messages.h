#pragma once

#include "optiq/artifacts/json.h"
#include "optiq/server/schema.h"

namespace optiq::server::openai {

/** What `messages` may hold. */
Schema messages_schema();

/**
 * Checked messages as chat templates know them: content as one text (parts
 * joined, "" where there is none), "developer" as "system", reasoning as
 * reasoning_content.
 */
artifacts::Json template_messages(const artifacts::Json& messages);

} // namespace optiq::server::openai
