#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "optiq/server/schema.h"
#include "optiq/server/service_state_impl.h"

namespace optiq::server {

using Endpoint = void (*)(ServiceState& state, Call& call);

/** One endpoint: what is served, and what is said of it in OpenAPI. */
struct Route {
  const char* method;
  const char* path; // may end in {id}, which takes the rest
  Endpoint handle;
  const char* summary;
  /** What the body may hold; null: none is read. Bodies are read on the
   * worker's thread. */
  Schema (*body)() = nullptr;
  const char* content_type = "application/json";
  bool streams = false; // as server-sent events, if asked to
  bool is_slow = false; // runs on the worker's thread, without a body too
};

/** Every endpoint of the service. */
std::span<const Route> routes();

struct RouteMatch {
  const Route* route = nullptr;
  std::string rest; // of the path, in place of {id}
};

/** The endpoint of a method and a path; HEAD is answered as GET. */
std::optional<RouteMatch> find_route(
    std::string_view method,
    std::string_view path);
/** The methods of a path, as Allow lists them; empty: there is no such path. */
std::string allowed_methods(std::string_view path);

} // namespace optiq::server
