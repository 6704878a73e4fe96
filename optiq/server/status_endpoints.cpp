#include <utility>

#include "optiq/base/version.h"
#include "optiq/server/endpoints_impl.h"
#include "optiq/server/openapi.h"
#include "optiq/server/page.h"
#include "optiq/server/request_error.h"

namespace optiq::server {
namespace {

using artifacts::Json;

Json defaults_json(const ServedModel& model) {
  const auto& sampler = model.defaults.sampler;
  const auto& logits = model.defaults.logits;
  return {
      {"temperature", sampler.temperature},
      {"top_p", sampler.top_p},
      {"top_k", sampler.top_k},
      {"min_p", sampler.min_p},
      {"repetition_penalty", logits.repetition_penalty},
      {"presence_penalty", logits.presence_penalty},
      {"frequency_penalty", logits.frequency_penalty},
      {"max_tokens", model.max_tokens}};
}

Json status_json(const generate::EngineStatus& status) {
  return {
      {"running", status.running},
      {"waiting", status.waiting},
      {"kv_bytes", status.cache_bytes},
      {"kv_max_bytes", status.max_cache_bytes},
      {"prefix_bytes", status.prefix_bytes},
      {"prompt_tokens", status.prompt_tokens},
      {"cached_tokens", status.cached_tokens},
      {"answer_tokens", status.answer_tokens},
      {"preemptions", status.preemptions}};
}

} // namespace

void health(ServiceState& /*state*/, Call& call) {
  respond_json(call, {{"status", "ok"}});
}

void ready(ServiceState& state, Call& call) {
  const bool is_ready = !state.open.is_refusing();
  respond_json(
      call,
      {{"status", is_ready ? "ready" : "draining"}},
      is_ready ? 200 : 503);
}

void version(ServiceState& /*state*/, Call& call) {
  respond_json(call, {{"version", kVersion}});
}

void metrics(ServiceState& state, Call& call) {
  call.reply->respond(
      {.content_type = "text/plain; version=0.0.4; charset=utf-8",
       .body = state.metrics.text(state.facts())});
}

void openapi(ServiceState& /*state*/, Call& call) {
  static const std::string document =
      artifacts::dump_json(openapi_document(), -1);
  call.reply->respond({.body = document});
}

void describe_served(ServiceState& state, Call& call) {
  Json described = state.model.description;
  described["id"] = state.model.id;
  described["defaults"] = defaults_json(state.model);
  Json adapters = Json::array();
  for (const ServedAdapter& adapter : state.adapters.list()->adapters) {
    adapters.push_back(adapter.facts.id);
  }
  described["adapters"] = std::move(adapters);
  described["status"] = status_json(state.engine.status());
  respond_json(call, described);
}

void page(ServiceState& /*state*/, Call& call) {
  auto response = page_response(call.request.path);
  if (!response) {
    throw RequestError(
        {.status = 404,
         .message = "[serve] the page has no such file",
         .code = "not_found"});
  }
  call.reply->respond(std::move(*response));
}

} // namespace optiq::server
