#include "optiq/server/openapi.h"

#include <string>
#include <utility>

#include "optiq/base/version.h"
#include "optiq/server/routes_impl.h"

namespace optiq::server {
namespace {

using artifacts::Json;

constexpr const char* kErrorSchema = "#/components/schemas/Error";

Json content(const char* type, Json schema) {
  return {{type, {{"schema", std::move(schema)}}}};
}

Json error_schema() {
  const Json text_or_null{{"type", Json::array({"string", "null"})}};
  return {
      {"type", "object"},
      {"required", Json::array({"error"})},
      {"properties",
       {{"error",
         {{"type", "object"},
          {"required", Json::array({"message", "type", "param", "code"})},
          {"properties",
           {{"message", {{"type", "string"}}},
            {"type", {{"type", "string"}}},
            {"param", text_or_null},
            {"code", text_or_null}}}}}}}};
}

/** Of one event of a stream. */
Json event_schema() {
  return {
      {"type", "object"},
      {"required", Json::array({"data"})},
      {"properties",
       {{"data",
         {{"type", "string"},
          {"description", "A chunk or an error as JSON; at last [DONE]."}}}}}};
}

Json responses(const Route& route) {
  const bool is_json =
      std::string_view(route.content_type) == "application/json";
  Json ok = content(
      route.content_type, is_json ? Json{{"type", "object"}} : Json::object());
  if (route.streams) {
    ok["text/event-stream"] = {{"schema", event_schema()}};
  }
  Json made{{"200", {{"description", "Success"}, {"content", std::move(ok)}}}};
  made["default"] = {
      {"description", "An error"},
      {"content", content("application/json", {{"$ref", kErrorSchema}})}};
  return made;
}

Json operation(const Route& route) {
  Json made{{"summary", route.summary}, {"responses", responses(route)}};
  if (std::string_view(route.path).ends_with("{id}")) {
    made["parameters"] = Json::array(
        {{{"name", "id"},
          {"in", "path"},
          {"required", true},
          {"schema", {{"type", "string"}, {"minLength", 1}}}}});
  }
  if (route.body != nullptr) {
    made["requestBody"] = {
        {"required", true},
        {"content", content("application/json", json_schema(route.body()))}};
  }
  return made;
}

} // namespace

Json openapi_document() {
  Json paths = Json::object();
  for (const Route& route : routes()) {
    paths[route.path][lower_case(route.method)] = operation(route);
  }
  return {
      {"openapi", "3.1.0"},
      {"info",
       {{"title", "OptIQ"},
        {"version", kVersion},
        {"description",
         "Local language models: OpenAI's chat completions and completions. A "
         "field that is null is as good as absent; one that is not listed is "
         "ignored, and the response names it in x-optiq-ignored-fields."}}},
      {"paths", std::move(paths)},
      {"components",
       {{"schemas", {{"Error", error_schema()}}},
        {"securitySchemes",
         {{"bearer", {{"type", "http"}, {"scheme", "bearer"}}}}}}},
      {"security", Json::array({Json::object(), {{"bearer", Json::array()}}})}};
}

} // namespace optiq::server
