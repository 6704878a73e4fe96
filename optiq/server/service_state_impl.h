#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "optiq/server/engine_thread.h"
#include "optiq/server/job.h"
#include "optiq/server/kv_layouts.h"
#include "optiq/server/metrics.h"
#include "optiq/server/open_answers.h"
#include "optiq/server/served_adapters.h"
#include "optiq/server/service.h"
#include "optiq/server/worker.h"
#include "optiq/text/reasoning.h"

namespace optiq::server {

/** What the endpoints share. */
struct ServiceState : std::enable_shared_from_this<ServiceState> {
  ServiceState(ServedModel served, ServiceOptions with);

  ServedModel model;
  ServiceOptions options;
  std::optional<text::ReasoningMarkers> reasoning;
  std::string fingerprint; // what the bits of an answer depend on
  std::int64_t started = 0; // seconds since 1970
  Metrics metrics;
  KvLayouts layouts;
  ServedAdapters adapters;
  OpenAnswers open;
  EngineThread engine;
  Worker worker; // last: it uses all else

  EngineFacts facts() const;
};

/** A reply that is counted, with headers that every answer to it has. */
class CountedReply final : public HttpReply {
 public:
  CountedReply(
      std::shared_ptr<HttpReply> reply,
      Metrics& metrics,
      std::string endpoint,
      Headers headers);

  /** One more header, before the answer begins. */
  void add_header(const std::string& name, const std::string& value);

  void respond(HttpResponse response) override;
  void begin_stream(Headers headers) override;
  bool write(std::string events) override;
  void end_stream() override;
  void on_gone(std::function<void()> call) override;

 private:
  std::shared_ptr<HttpReply> reply_;
  Metrics& metrics_;
  std::string endpoint_;
  Headers headers_;
};

/** A request on its way. */
struct Call {
  HttpRequest request;
  std::shared_ptr<CountedReply> reply;
  std::string tenant;
  std::string rest_of_path; // what stands for {id}
  Clock::time_point received;
};

/** The whole answer to a call. */
void respond_json(
    const Call& call,
    const artifacts::Json& body,
    int status = 200);

/** Puts an answer into the engine's queue; the writer has the last word, unless
 * the client goes. Throws RequestErrors. */
void start_answer(
    ServiceState& state,
    const Call& call,
    std::vector<Choice> choices,
    std::unique_ptr<AnswerWriter> writer);

} // namespace optiq::server
