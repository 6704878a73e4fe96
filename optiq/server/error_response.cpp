#include "optiq/server/error_response.h"

#include "optiq/artifacts/json.h"

namespace optiq::server {
namespace {

const char* type_of(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    default:
      return status < 500 ? "invalid_request_error" : "server_error";
  }
}

artifacts::Json text_or_null(const std::string& text) {
  return text.empty() ? artifacts::Json() : artifacts::Json(text);
}

} // namespace

HttpResponse error_response(const ApiError& error) {
  const artifacts::Json body{
      {"error",
       {{"message", error.message},
        {"type", type_of(error.status)},
        {"param", text_or_null(error.param)},
        {"code", text_or_null(error.code)}}}};
  return {.status = error.status, .body = artifacts::dump_json(body, -1)};
}

} // namespace optiq::server
