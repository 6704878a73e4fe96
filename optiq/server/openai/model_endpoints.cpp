#include <utility>

#include <fmt/format.h>

#include "optiq/server/endpoints_impl.h"
#include "optiq/server/openai/model_name_impl.h"
#include "optiq/server/request_error.h"

namespace optiq::server {
namespace {

using artifacts::Json;

constexpr const char* kDefaultName = "default";

Json model_json(const ServiceState& state) {
  return {
      {"id", state.model.id},
      {"object", "model"},
      {"created", state.started},
      {"owned_by", "optiq"},
      {"max_model_len", state.model.setup.model->info().max_positions}};
}

[[noreturn]] void refuse_model(
    const ServiceState& state,
    const std::string& name) {
  throw RequestError(
      {.status = 404,
       .message = fmt::format(
           "[serve] found the model {}, expected '{}', the one that is served",
           artifacts::describe(Json(name)),
           state.model.id),
       .code = "model_not_found",
       .param = "model"});
}

} // namespace

namespace openai {

void check_model_name(
    const ServiceState& state,
    const std::optional<std::string>& name) {
  if (name && *name != state.model.id && *name != kDefaultName) {
    refuse_model(state, *name);
  }
}

} // namespace openai

void list_models(ServiceState& state, Call& call) {
  const Json models{
      {"object", "list"}, {"data", Json::array({model_json(state)})}};
  respond_json(call, models);
}

void show_model(ServiceState& state, Call& call) {
  if (call.rest_of_path != state.model.id) {
    refuse_model(state, call.rest_of_path);
  }
  respond_json(call, model_json(state));
}

} // namespace optiq::server
