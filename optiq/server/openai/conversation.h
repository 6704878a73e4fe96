#pragma once

#include <string>

#include "optiq/server/openai/chat_request.h"
#include "optiq/server/service.h"

namespace optiq::server::openai {

/** The prompt that a conversation becomes by the model's chat template. Throws
 * a RequestError for a model without one, for what the template refuses, and
 * when it takes too long. */
std::string render_conversation(
    const ServedModel& model,
    const Conversation& conversation);

} // namespace optiq::server::openai
