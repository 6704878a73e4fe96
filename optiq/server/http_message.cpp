#include "optiq/server/http_message.h"

namespace optiq::server {

std::optional<std::string> HttpRequest::header(
    std::string_view lower_case_name) const {
  for (const auto& [name, value] : headers) {
    if (name == lower_case_name) {
      return value;
    }
  }
  return std::nullopt;
}

} // namespace optiq::server
