#pragma once

#include <optional>
#include <string>

#include "optiq/artifacts/json.h"
#include "optiq/server/http_message.h"

namespace optiq::server {

/** What went wrong with a request, in OpenAI's words. */
struct ApiError {
  int status = 400;
  std::string message;
  std::string code; // "invalid_api_key"; empty: null
  std::string param; // the field that is at fault; empty: null
};

/** {"error": {"message", "type", "param", "code"}} (OpenAI API reference,
 * "Error codes"); the type follows from the status. */
artifacts::Json error_json(const ApiError& error);

/** The same as a response. */
HttpResponse error_response(const ApiError& error);

} // namespace optiq::server
