#include <algorithm>
#include <array>
#include <utility>

#include "optiq/server/endpoints_impl.h"
#include "optiq/server/routes_impl.h"

namespace optiq::server {
namespace {

constexpr std::string_view kId = "{id}";
constexpr const char* kHtml = "text/html; charset=utf-8";

constexpr auto kRoutes = std::to_array<Route>({
    {"POST",
     "/v1/chat/completions",
     chat_completions,
     "Answers a conversation",
     chat_completions_body,
     "application/json",
     true},
    {"POST",
     "/v1/completions",
     completions,
     "Continues a text",
     completions_body,
     "application/json",
     true},
    {"GET", "/v1/models", list_models, "Lists what is served"},
    {"GET", "/v1/models/{id}", show_model, "Describes a model"},
    {"GET", "/v1/adapters", list_adapters, "Lists the mounted adapters"},
    {"POST",
     "/v1/adapters",
     mount_adapter,
     "Mounts an adapter of --adapters-root",
     mount_adapter_body},
    {"GET", "/v1/adapters/{id}", show_adapter, "Describes an adapter"},
    {.method = "DELETE",
     .path = "/v1/adapters/{id}",
     .handle = unmount_adapter,
     .summary = "Unmounts an adapter; answers that run with it go on",
     .is_slow = true},
    {"GET",
     "/v1/optiq/model",
     describe_served,
     "The model's bit map and K/V formats, and what the engine does"},
    {"POST", "/tokenize", tokenize, "The ids of a text", tokenize_body},
    {"POST", "/detokenize", detokenize, "The text of ids", detokenize_body},
    {"POST",
     "/apply-template",
     apply_template,
     "The prompt that a conversation becomes",
     apply_template_body},
    {"GET", "/health", health, "Whether the process is up"},
    {"GET", "/ready", ready, "Whether new work is taken (200 or 503)"},
    {"GET", "/version", version, "The server's version"},
    {"GET",
     "/metrics",
     metrics,
     "Metrics in Prometheus' text format",
     nullptr,
     "text/plain; version=0.0.4; charset=utf-8"},
    {"GET", "/openapi.json", openapi, "This description"},
    {"GET", "/", page, "A page to chat in", nullptr, kHtml},
    {"GET", "/page/{id}", page, "Files of the page", nullptr, "*/*"},
});

/** What stands for {id}, if the path is one of the route's. */
std::optional<std::string> match(
    std::string_view pattern,
    std::string_view path) {
  if (!pattern.ends_with(kId)) {
    return pattern == path ? std::optional<std::string>("") : std::nullopt;
  }
  pattern.remove_suffix(kId.size());
  return path.size() > pattern.size() && path.starts_with(pattern)
      ? std::optional(std::string(path.substr(pattern.size())))
      : std::nullopt;
}

} // namespace

std::span<const Route> routes() {
  return kRoutes;
}

std::optional<RouteMatch> find_route(
    std::string_view method,
    std::string_view path) {
  const std::string_view wanted = method == "HEAD" ? "GET" : method;
  for (const Route& route : kRoutes) {
    if (wanted == route.method) {
      if (auto rest = match(route.path, path)) {
        return RouteMatch{&route, std::move(*rest)};
      }
    }
  }
  return std::nullopt;
}

std::string allowed_methods(std::string_view path) {
  std::string methods;
  for (const Route& route : kRoutes) {
    if (match(route.path, path)) {
      methods += (methods.empty() ? "" : ", ") + std::string(route.method);
      if (std::string_view(route.method) == "GET") {
        methods += ", HEAD";
      }
    }
  }
  return methods;
}

} // namespace optiq::server
