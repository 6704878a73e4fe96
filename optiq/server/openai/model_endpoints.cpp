#include <utility>

#include "optiq/server/endpoints_impl.h"
#include "optiq/server/openai/model_choice_impl.h"

namespace optiq::server {
namespace {

using artifacts::Json;

Json model_json(
    const ServiceState& state,
    const std::string& name,
    std::int64_t created) {
  Json model{
      {"id", name},
      {"object", "model"},
      {"created", created},
      {"owned_by", "optiq"},
      {"max_model_len", state.model.setup.model->info().max_positions}};
  if (name != state.model.id) {
    model["parent"] = state.model.id;
  }
  return model;
}

/** The model, and it with each of its adapters. */
Json models_json(const ServiceState& state) {
  Json models = Json::array({model_json(state, state.model.id, state.started)});
  for (const ServedAdapter& adapter : state.adapters.list()->adapters) {
    models.push_back(model_json(
        state,
        openai::name_with_adapter(state, adapter.facts.id),
        adapter.created));
  }
  return models;
}

} // namespace

void list_models(ServiceState& state, Call& call) {
  const Json models{{"object", "list"}, {"data", models_json(state)}};
  respond_json(call, models);
}

void show_model(ServiceState& state, Call& call) {
  for (const Json& model : models_json(state)) {
    if (model["id"] == call.rest_of_path) {
      respond_json(call, model);
      return;
    }
  }
  openai::refuse_model(state, call.rest_of_path);
}

} // namespace optiq::server
