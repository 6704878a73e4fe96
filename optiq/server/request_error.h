#pragma once

#include <exception>

#include "optiq/base/error.h"
#include "optiq/server/error_response.h"

namespace optiq::server {

/** A request that is refused, in the words of the protocol. */
class RequestError : public Error {
 public:
  explicit RequestError(ApiError error);

  const ApiError& api_error() const {
    return error_;
  }

 private:
  ApiError error_;
};

/** Throws a RequestError with status 400 about a field. */
[[noreturn]] void refuse_field(
    const std::string& param,
    const std::string& code,
    const std::string& message);

/** What a client is told of an exception: the error of a RequestError, else the
 * message with the status of its kind; of what is no Error of ours, nothing but
 * 500. */
ApiError api_error_of(const std::exception_ptr& error);

/** The response to a request that is refused or failed; what may succeed later
 * says when to try again (Retry-After). */
HttpResponse refusal(const ApiError& error);

} // namespace optiq::server
