#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "optiq/artifacts/json.h"
#include "optiq/generate/generation_config.h"
#include "optiq/models/setup.h"
#include "optiq/server/access.h"
#include "optiq/server/http_message.h"
#include "optiq/server/served_adapters.h"
#include "optiq/text/chat_template.h"
#include "optiq/text/tokenizer.h"

namespace optiq::server {

/** A model as it is served. */
struct ServedModel {
  std::string id; // what clients call it
  models::Setup setup;
  std::shared_ptr<const text::Tokenizer> tokenizer;
  std::optional<text::ChatTemplate> chat_template;
  std::vector<std::int32_t> stop_ids;
  /** Defaults of what a request leaves open; flags of serve are in it. */
  generate::GenerationConfig defaults;
  int max_tokens = 32768; // of an answer that nobody limited
  artifacts::Json description; // for the page: bit map, K/V formats, sizes
};

struct ServiceOptions {
  int max_concurrent = 8;
  int max_waiting = 64;
  int prefill_chunk = 512;
  std::size_t kv_bytes = std::size_t{4} << 30;
  AccessRules access; // of each request
  AdapterOptions adapters;
};

/** The endpoints over one engine on a thread of its own. */
class Service {
 public:
  /** Throws as the constructors of ServedAdapters and Engine. */
  Service(ServedModel model, ServiceOptions options);
  ~Service();
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  /** An HttpHandler. */
  void handle(HttpRequest request, std::shared_ptr<HttpReply> reply);
  /** Refuses new work from now on (503); what runs may go on until `grace` is
   * over, then each open answer ends with a last event that says so. Returns
   * when all have ended. */
  void drain(std::chrono::milliseconds grace);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

} // namespace optiq::server
