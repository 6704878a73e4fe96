// Serves a fake model (tests/support/served_script.h) through the whole
// server: HTTP, endpoints, engine. Prints "listening PORT" and serves until
// SIGTERM. Flags have one value each.

#include <chrono>
#include <csignal>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "support/served_script.h"

#include "optiq/server/server.h"

namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

struct Options {
  optiq::testing::ScriptedOptions model{.fails = false};
  optiq::server::HttpServerOptions http{.port = 0};
  optiq::server::ServiceOptions service;
  milliseconds drain{8000};
};

/** False for a flag that there is not. */
bool set_option(
    Options& options,
    const std::string& flag,
    const std::string& value) {
  const auto number = [&] { return std::stol(value); };
  const std::map<std::string, std::function<void()>> kFlags{
      {"--fails", [&] { options.model.fails = number() != 0; }},
      {"--positions",
       [&] { options.model.max_positions = static_cast<int>(number()); }},
      {"--step-us", [&] { options.model.step_time = microseconds(number()); }},
      {"--port", [&] { options.http.port = static_cast<int>(number()); }},
      {"--header-timeout-ms",
       [&] { options.http.header_timeout = milliseconds(number()); }},
      {"--max-connections",
       [&] {
         options.http.max_connections = static_cast<std::size_t>(number());
       }},
      {"--max-concurrent",
       [&] { options.service.max_concurrent = static_cast<int>(number()); }},
      {"--max-queue",
       [&] { options.service.max_waiting = static_cast<int>(number()); }},
      {"--kv-bytes",
       [&] { options.service.kv_bytes = static_cast<std::size_t>(number()); }},
      {"--api-key", [&] { options.service.access.api_keys = {value}; }},
      {"--drain-ms", [&] { options.drain = milliseconds(number()); }}};
  const auto found = kFlags.find(flag);
  if (found == kFlags.end()) {
    return false;
  }
  found->second();
  return true;
}

} // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (!set_option(options, argv[i], argv[i + 1])) {
      std::fprintf(stderr, "no flag %s\n", argv[i]);
      return 2;
    }
  }
  // Before there are threads, so that all of them leave it to sigwait.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  optiq::server::Server server(options.http, options.service.access, nullptr);
  server.open(std::make_unique<optiq::server::Service>(
      optiq::testing::scripted_served(options.model), options.service));
  std::printf("listening %d\n", server.port());
  std::fflush(stdout);
  int signal = 0;
  sigwait(&signals, &signal);
  server.close(options.drain);
  return 0;
}
