#include "optiq/server/request_error.h"

#include <utility>

namespace optiq::server {
namespace {

struct StatusRow {
  int status;
  const char* code; // empty: null
};

// In the order of ErrorKind. A file that is broken or cannot be read is none
// of the client's fault; a queue or a pool that is full is so for a while.
constexpr StatusRow kStatuses[] = {
    {400, "invalid_value"},
    {404, "not_found"},
    {400, "unsupported_value"},
    {500, "server_error"},
    {500, "server_error"},
    {429, "queue_full"},
    {403, "denied"},
    {503, "cancelled"},
    {500, "server_error"},
};

ErrorKind kind_of(int status) {
  for (std::size_t i = 0; i < std::size(kStatuses); ++i) {
    if (kStatuses[i].status == status) {
      return static_cast<ErrorKind>(i);
    }
  }
  return status < 500 ? ErrorKind::InvalidInput : ErrorKind::Internal;
}

} // namespace

RequestError::RequestError(ApiError error)
    : Error(kind_of(error.status), error.message), error_(std::move(error)) {}

void refuse_field(
    const std::string& param,
    const std::string& code,
    const std::string& message) {
  throw RequestError({.message = message, .code = code, .param = param});
}

ApiError api_error_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const RequestError& refused) {
    return refused.api_error();
  } catch (const Error& failed) {
    const StatusRow& row = kStatuses[static_cast<int>(failed.kind())];
    return {.status = row.status, .message = failed.what(), .code = row.code};
  } catch (const std::exception&) {
    return {
        .status = 500,
        .message = "[serve] the request failed for a reason of ours",
        .code = "server_error"};
  }
}

HttpResponse refusal(const ApiError& error) {
  HttpResponse response = error_response(error);
  if (error.status == 429 || error.status == 503) {
    response.headers.emplace_back("retry-after", "1"); // seconds
  }
  return response;
}

} // namespace optiq::server
