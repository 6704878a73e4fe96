#include "optiq/server/server.h"

#include <optional>
#include <utility>

#include "optiq/server/error_response.h"

namespace optiq::server {
namespace {

/** What a drained answer may take to reach its reader. */
constexpr std::chrono::milliseconds kFlushTime{1000};

/** The refusal of a request that may not be served, before its body is read. */
std::optional<HttpResponse> refuse(
    const HttpRequest& request,
    const AccessRules& rules) {
  Access access = check_access(request, rules);
  if (access.refusal) {
    access.refusal->headers.insert(
        access.refusal->headers.end(),
        access.headers.begin(),
        access.headers.end());
  }
  return access.refusal;
}

} // namespace

Server::Server(
    HttpServerOptions options,
    AccessRules rules,
    std::function<void(const HttpAccess&)> access_log)
    : http_(
          std::move(options),
          [this](HttpRequest request, std::shared_ptr<HttpReply> reply) {
            handle(std::move(request), std::move(reply));
          }) {
  http_.set_access_log(std::move(access_log));
  http_.set_gate([rules = std::move(rules)](const HttpRequest& request) {
    return refuse(request, rules);
  });
  thread_ = std::thread([this] { http_.run(); });
}

Server::~Server() {
  if (thread_.joinable()) {
    http_.stop(std::chrono::milliseconds(0));
    thread_.join();
  }
}

int Server::port() const {
  return http_.port();
}

void Server::open(std::unique_ptr<Service> service) {
  service_ = std::move(service);
  opened_ = service_.get();
}

void Server::close(std::chrono::milliseconds grace) {
  http_.stop(grace + kFlushTime);
  if (service_) {
    service_->drain(grace);
  }
  thread_.join();
}

void Server::handle(HttpRequest request, std::shared_ptr<HttpReply> reply) {
  if (Service* const service = opened_) {
    service->handle(std::move(request), std::move(reply));
    return;
  }
  HttpResponse loading = error_response(
      {.status = 503,
       .message = "the model is being loaded",
       .code = "loading"});
  loading.headers.emplace_back("retry-after", "1");
  reply->respond(std::move(loading));
}

} // namespace optiq::server
