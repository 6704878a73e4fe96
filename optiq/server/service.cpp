#include "optiq/server/service.h"

#include <exception>
#include <utility>

#include <fmt/format.h>

#include "optiq/base/version.h"
#include "optiq/kernels/machine.h"
#include "optiq/server/request_error.h"
#include "optiq/server/routes_impl.h"
#include "optiq/server/service_state_impl.h"

namespace optiq::server {
namespace {

// As many as there may be connections.
constexpr std::size_t kMaxUnread = 4096;

EngineThread::Hooks engine_hooks(ServiceState& state) {
  return {
      .on_step =
          [&state](const generate::EngineStatus& status) {
            state.metrics.step_sequences.observe(status.last_step_sequences);
            state.metrics.step_rows.observe(status.last_step_rows);
          },
      .on_failure =
          [&state](const std::exception_ptr& error) {
            for (const auto& job : state.open.all()) {
              job->fail(api_error_of(error));
            }
          }};
}

generate::EngineOptions engine_options(const ServiceOptions& options) {
  return {
      .prefill_chunk = options.prefill_chunk,
      .max_cache_bytes = options.kv_bytes,
      .max_running = options.max_concurrent,
      .max_waiting = options.max_waiting};
}

std::int64_t seconds_since_1970() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

void respond_no_route(const HttpRequest& request, CountedReply& reply) {
  const std::string allowed = allowed_methods(request.path);
  if (allowed.empty()) {
    reply.respond(error_response(
        {.status = 404,
         .message = "[serve] there is no such endpoint. See /openapi.json",
         .code = "not_found"}));
    return;
  }
  reply.add_header("allow", allowed);
  reply.respond(error_response(
      {.status = 405,
       .message = fmt::format(
           "[serve] the method is not allowed here, expected {}", allowed),
       .code = "method_not_allowed"}));
}

/** The endpoint, and what it throws as its answer. */
void run_endpoint(ServiceState& state, const Route& route, Call& call) {
  try {
    route.handle(state, call);
  } catch (...) {
    call.reply->respond(refusal(api_error_of(std::current_exception())));
  }
}

ApiError shutting_down() {
  return {
      .status = 503,
      .message = "[serve] the server is shutting down",
      .code = "shutting_down"};
}

} // namespace

ServiceState::ServiceState(ServedModel served, ServiceOptions with)
    : model(std::move(served)),
      options(std::move(with)),
      fingerprint(fmt::format(
          "optiq-{}-{}-{}",
          kVersion,
          kernels::name_of(model.setup.compute),
          kernels::simd_target())),
      started(seconds_since_1970()),
      layouts(model.setup),
      adapters(model.setup, options.adapters),
      engine(model.setup, engine_options(options), engine_hooks(*this)),
      worker(kMaxUnread) {
  if (model.chat_template) {
    reasoning =
        text::find_reasoning_markers(*model.chat_template, *model.tokenizer);
  }
}

EngineFacts ServiceState::facts() const {
  const auto list = adapters.list();
  return {
      .status = engine.status(),
      .restarts = engine.restarts(),
      .open_answers = open.size(),
      .kv_bytes_per_token = cache::bytes_per_token(model.setup.layout),
      .adapters_mounted = list->adapters.size(),
      .adapters_resident = list->resident.adapters,
      .adapter_bytes = list->resident.bytes,
      .adapter_max_bytes = list->max_resident_bytes,
      .model = model.id};
}

CountedReply::CountedReply(
    std::shared_ptr<HttpReply> reply,
    Metrics& metrics,
    std::string endpoint,
    Headers headers)
    : reply_(std::move(reply)),
      metrics_(metrics),
      endpoint_(std::move(endpoint)),
      headers_(std::move(headers)) {}

void CountedReply::add_header(
    const std::string& name,
    const std::string& value) {
  headers_.emplace_back(name, value);
}

void CountedReply::respond(HttpResponse response) {
  metrics_.count_response(endpoint_, response.status);
  response.headers.insert(
      response.headers.end(), headers_.begin(), headers_.end());
  reply_->respond(std::move(response));
}

void CountedReply::begin_stream(Headers headers) {
  metrics_.count_response(endpoint_, 200);
  headers.insert(headers.end(), headers_.begin(), headers_.end());
  reply_->begin_stream(std::move(headers));
}

bool CountedReply::write(std::string events) {
  return reply_->write(std::move(events));
}

void CountedReply::end_stream() {
  reply_->end_stream();
}

void CountedReply::on_gone(std::function<void()> call) {
  reply_->on_gone(std::move(call));
}

void respond_json(const Call& call, const artifacts::Json& body, int status) {
  call.reply->respond(
      {.status = status, .body = artifacts::dump_json(body, -1)});
}

void start_answer(
    ServiceState& state,
    const Call& call,
    std::vector<Choice> choices,
    std::unique_ptr<AnswerWriter> writer) {
  auto job = std::make_shared<Job>(
      std::move(choices), std::move(writer), state.metrics, call.received);
  job->set_on_done([&open = state.open, key = job.get()] { open.remove(key); });
  if (!state.open.add(job)) {
    throw RequestError(shutting_down());
  }
  // The reply may outlive the service, and the connection the job.
  call.reply->on_gone(
      [weak_state = state.weak_from_this(), weak_job = std::weak_ptr(job)] {
        if (const auto alive = weak_state.lock()) {
          alive->engine.post([weak_job](generate::Engine&) {
            if (const auto gone = weak_job.lock()) {
              gone->abandon();
            }
          });
        }
      });
  state.engine.post(
      [job = std::move(job)](generate::Engine& engine) { job->start(engine); });
}

struct Service::Impl {
  std::shared_ptr<ServiceState> state;
};

Service::Service(ServedModel model, ServiceOptions options)
    : impl_(std::make_unique<Impl>(Impl{std::make_shared<ServiceState>(
          std::move(model),
          std::move(options))})) {}

Service::~Service() {
  drain(std::chrono::milliseconds(0));
}

void Service::handle(HttpRequest request, std::shared_ptr<HttpReply> reply) {
  ServiceState& state = *impl_->state;
  Access access = check_access(request, state.options.access);
  auto match = find_route(request.method, request.path);
  auto counted = std::make_shared<CountedReply>(
      std::move(reply),
      state.metrics,
      match ? match->route->path : "other",
      std::move(access.headers));
  if (access.refusal) {
    counted->respond(std::move(*access.refusal));
    return;
  }
  if (!match) {
    respond_no_route(request, *counted);
    return;
  }
  auto call = std::make_shared<Call>(Call{
      .request = std::move(request),
      .reply = std::move(counted),
      .tenant = std::move(access.tenant),
      .rest_of_path = std::move(match->rest),
      .received = Clock::now()});
  const Route& route = *match->route;
  if (route.body == nullptr && !route.is_slow) {
    run_endpoint(state, route, *call);
    return;
  }
  const bool is_taken = state.worker.post(
      [&state, &route, call] { run_endpoint(state, route, *call); });
  if (!is_taken) {
    call->reply->respond(refusal(
        {.status = 429,
         .message = "[serve] too many requests wait to be read",
         .code = "queue_full"}));
  }
}

void Service::drain(std::chrono::milliseconds grace) {
  ServiceState& state = *impl_->state;
  state.open.refuse_new();
  if (state.open.wait_for_none(grace)) {
    return;
  }
  state.engine.post([&state](generate::Engine&) {
    for (const auto& job : state.open.all()) {
      job->fail(shutting_down());
    }
  });
  state.open.wait_for_none();
}

} // namespace optiq::server
