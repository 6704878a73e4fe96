#pragma once

#include <memory>

#include "optiq/server/http_message.h"
#include "optiq/server/job.h"
#include "optiq/server/openai/answer_form.h"

namespace optiq::server::openai {

/** Sends an answer as one JSON object when all of it is there. */
std::unique_ptr<AnswerWriter> make_whole_writer(
    std::shared_ptr<HttpReply> reply,
    AnswerHeader header,
    std::unique_ptr<AnswerForm> form,
    std::size_t n_choices);

/** Sends an answer as server-sent events, chunk by chunk, and [DONE]; with
 * `include_usage` a chunk before it that has the usage and no choices. */
std::unique_ptr<AnswerWriter> make_stream_writer(
    std::shared_ptr<HttpReply> reply,
    const AnswerHeader& header,
    std::unique_ptr<AnswerForm> form,
    std::size_t n_choices,
    bool include_usage);

} // namespace optiq::server::openai
