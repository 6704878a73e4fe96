#include "optiq/server/error_response.h"

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

artifacts::Json error_json(const ApiError& error) {
  return {
      {"error",
       {{"message", error.message},
        {"type", type_of(error.status)},
        {"param", text_or_null(error.param)},
        {"code", text_or_null(error.code)}}}};
}

HttpResponse error_response(const ApiError& error) {
  return {
      .status = error.status,
      .body = artifacts::dump_json(error_json(error), -1)};
}

} // namespace optiq::server
