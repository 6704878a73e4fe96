#include <string>

#include "optiq/base/error.h"
#include "optiq/cli/chat_model.h"
#include "optiq/cli/event_stream.h"
#include "optiq/io/http.h"

namespace optiq::cli {
namespace {

using artifacts::Json;

constexpr std::string_view kUnix = "unix:";
constexpr std::uint64_t kMaxAnswerBytes = 256u << 20;

/** Ends a transfer when the user stops the answer. */
struct AnswerStopped {};

/** Where a server is. */
struct Address {
  std::string base; // with the version: "http://127.0.0.1:8080/v1"
  std::string unix_socket;
};

Address address_of(const std::string& url) {
  if (url.starts_with(kUnix)) {
    return {"http://localhost/v1", url.substr(kUnix.size())};
  }
  std::string base = url;
  while (base.ends_with('/')) {
    base.pop_back();
  }
  const std::size_t path = base.find('/', base.find("://") + 3);
  return {path == std::string::npos ? base + "/v1" : base, ""};
}

ErrorKind kind_of_status(long status) {
  switch (status) {
    case 401:
    case 403:
      return ErrorKind::Denied;
    case 404:
      return ErrorKind::NotFound;
    case 429:
    case 503:
      return ErrorKind::Exhausted;
    default:
      return status < 500 ? ErrorKind::InvalidInput : ErrorKind::Io;
  }
}

/** What an error says: that of OpenAI's object, or its text. */
std::string message_of(const std::string& body) {
  constexpr std::size_t kMostShown = 500;
  Json error;
  try {
    error = artifacts::parse_json(body, "error");
  } catch (const Error&) {
    return body.substr(0, kMostShown);
  }
  if (error.is_object() && error.contains("error")) {
    error = Json(error["error"]);
  }
  return error.is_object() && error.contains("message") &&
          error["message"].is_string()
      ? error["message"].get<std::string>()
      : body.substr(0, kMostShown);
}

/** A text field of an object, or "". */
std::string text_field(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>()
                                                     : std::string();
}

/** A server of OpenAI's protocol. */
class ServerChat final : public ChatModel {
 public:
  ServerChat(const ServerFlags& server, const AnswerFlags& flags)
      : address_(address_of(server.url)),
        client_(io::origin_of(address_.base), server.api_key, ""),
        model_(server.model_id),
        flags_(flags) {
    if (model_.empty()) {
      model_ = first_model();
    }
    // In the name, which a server that knows no adapters refuses.
    for (std::size_t i = 0; i < server.adapters.size(); ++i) {
      model_ += (i == 0 ? ":" : "+") + server.adapters[i];
    }
  }

  std::string name() const override {
    return model_;
  }
  std::filesystem::path path() const override {
    return {};
  }

  AnswerEnd answer(
      const Json& messages,
      const std::atomic<bool>& stop,
      const AnswerSink& sink) override {
    AnswerEnd end = AnswerEnd::Complete;
    bool is_complete = false;
    EventStream events;
    std::string error;
    long status = 0;
    const auto take_event = [&](std::string_view data) {
      is_complete = is_complete || data == "[DONE]";
      if (!is_complete) {
        take_chunk(data, end, sink);
      }
    };
    const auto check_stop = [&] {
      if (stop.load()) {
        throw AnswerStopped();
      }
    };
    auto request = request_to("/chat/completions");
    request.json = artifacts::dump_json(body_of(messages), -1);
    request.stall_timeout_s = 0; // a long prompt takes its time
    request.on_wait = check_stop;
    try {
      status = send(
          request,
          [&](const io::HttpResult& result) { status = result.last.status; },
          [&](std::string_view bytes) {
            check_stop();
            if (status == 200) {
              events.push(bytes, take_event);
            } else {
              error += bytes;
            }
          });
    } catch (const AnswerStopped&) {
      return AnswerEnd::Stopped;
    }
    require_ok(status, error);
    if (!is_complete) {
      fail(
          ErrorKind::Io,
          "[chat] {}: the answer broke off before its end",
          address_.base);
    }
    return end;
  }

 private:
  using Body = std::function<void(std::string_view)>;

  io::HttpRequest request_to(const char* path) const {
    io::HttpRequest request;
    request.url = address_.base + path;
    request.unix_socket = address_.unix_socket;
    return request;
  }

  /** The status. */
  long send(
      const io::HttpRequest& request,
      const io::HttpClient::Head& on_head,
      const Body& on_body) {
    const auto result = client_.send(
        request,
        kMaxAnswerBytes,
        on_head,
        [&](std::span<const std::byte> bytes) {
          on_body({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
        });
    if (result.broken) {
      fail(
          ErrorKind::Io,
          "[chat] {}: {}. Is a server there?",
          address_.unix_socket.empty() ? address_.base : address_.unix_socket,
          *result.broken);
    }
    return result.last.status;
  }

  void require_ok(long status, const std::string& error) const {
    if (status != 200) {
      fail(
          kind_of_status(status),
          "[chat] {}: answers {}: {}",
          address_.base,
          status,
          message_of(error));
    }
  }

  std::string first_model() {
    std::string body;
    const long status = send(
        request_to("/models"),
        [](const io::HttpResult&) {},
        [&](std::string_view bytes) { body += bytes; });
    require_ok(status, body);
    const Json json = artifacts::parse_json(body, address_.base + "/models");
    const Json models = json.is_object() ? json.value("data", Json()) : Json();
    std::string id = models.is_array() && !models.empty()
        ? text_field(models.front(), "id")
        : "";
    if (id.empty()) {
      fail(
          ErrorKind::Corrupt,
          "[chat] {}/models: found no model, expected {{\"data\": "
          "[{{\"id\": ...}}]}}. Name one with --model-id",
          address_.base);
    }
    return id;
  }

  Json body_of(const Json& messages) const {
    Json body{{"model", model_}, {"messages", messages}, {"stream", true}};
    const auto set = [&](const char* name, const auto& value) {
      if (value) {
        body[name] = *value;
      }
    };
    const generate::SamplingChoice& sampling = flags_.sampling;
    set("max_tokens", flags_.max_tokens);
    set("seed", flags_.seed);
    set("temperature", sampling.temperature);
    set("top_p", sampling.top_p);
    set("top_k", sampling.top_k);
    set("min_p", sampling.min_p);
    set("typical_p", sampling.typical_p);
    set("repetition_penalty", sampling.repetition_penalty);
    set("presence_penalty", sampling.presence_penalty);
    set("frequency_penalty", sampling.frequency_penalty);
    return body;
  }

  void take_chunk(std::string_view data, AnswerEnd& end, const AnswerSink& sink)
      const {
    const Json chunk = artifacts::parse_json(data, address_.base);
    if (!chunk.is_object() || chunk.contains("error")) {
      fail(
          ErrorKind::Io,
          "[chat] {}: {}",
          address_.base,
          message_of(std::string(data)));
    }
    for (const Json& choice : chunk.value("choices", Json::array())) {
      if (!choice.is_object()) {
        continue;
      }
      const Json delta = choice.value("delta", Json::object());
      if (delta.is_object()) {
        const std::string reasoning = text_field(delta, "reasoning_content");
        sink(
            text_field(delta, "content"),
            reasoning.empty() ? text_field(delta, "reasoning") : reasoning);
      }
      if (text_field(choice, "finish_reason") == "length") {
        end = AnswerEnd::TooLong;
      }
    }
  }

  Address address_;
  io::HttpClient client_;
  std::string model_;
  AnswerFlags flags_;
};

} // namespace

bool is_server(const std::string& model) {
  return model.starts_with("http://") || model.starts_with("https://") ||
      model.starts_with(kUnix);
}

std::unique_ptr<ChatModel> open_server_chat(
    const ServerFlags& server,
    const AnswerFlags& flags) {
  return std::make_unique<ServerChat>(server, flags);
}

} // namespace optiq::cli
