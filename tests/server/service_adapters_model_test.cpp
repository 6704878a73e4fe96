#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/fake_reply.h"
#include "support/prometheus.h"
#include "support/served_tiny.h"
#include "support/small_adapter.h"

#include "optiq/server/service.h"

namespace optiq::server {
namespace {

namespace fs = std::filesystem;
using artifacts::Json;
using testing::FakeReply;

/** Adapters a, b and c of tiny-qwen3.5; the first two are mounted. */
class ServiceAdaptersTest : public ::testing::Test {
 protected:
  ServiceAdaptersTest() {
    fs::create_directory(root_);
    for (const auto& [name, seed] :
         {std::pair{"a", 1U}, std::pair{"b", 200U}, std::pair{"c", 400U}}) {
      testing::write_random_adapter(
          root_ / name,
          *model_.setup.model,
          {"q_proj", "in_proj_qkv", "mlp.up_proj", "mlp.down_proj"},
          4,
          seed);
    }
  }

  /** With the adapters of these ids, and a root unless it may not change. */
  std::unique_ptr<Service> serve(
      const std::vector<std::string>& mounted,
      bool has_root = true,
      std::size_t max_bytes = std::size_t{1} << 30) const {
    AdapterOptions adapters{.max_resident_bytes = max_bytes};
    for (const std::string& id : mounted) {
      adapters.mounted.push_back({id, root_ / id});
    }
    if (has_root) {
      adapters.root = root_;
    }
    return std::make_unique<Service>(
        model_,
        ServiceOptions{
            .max_concurrent = 16, .max_waiting = 64, .adapters = adapters});
  }

  static std::shared_ptr<FakeReply> send(
      Service& service,
      const std::string& method,
      const std::string& path,
      const Json& body = nullptr) {
    auto reply = std::make_shared<FakeReply>();
    service.handle(
        {.method = method,
         .path = path,
         .body = body.is_null() ? "" : body.dump()},
        reply);
    return reply;
  }

  /** A prompt that is long enough to be kept. */
  static std::string long_text() {
    std::string text;
    for (const std::string& question : testing::questions(10)) {
      text += question + " ";
    }
    return text;
  }
  static Json chat(Json more, const std::string& text = "How many?") {
    more["messages"] = Json::array({{{"role", "user"}, {"content", text}}});
    more["seed"] = 7;
    more["temperature"] = 0.8;
    more["max_tokens"] = 10;
    more["logprobs"] = true;
    more["top_logprobs"] = 3;
    return more;
  }
  static std::shared_ptr<FakeReply> ask(Service& service, const Json& body) {
    return send(service, "POST", "/v1/chat/completions", body);
  }
  static Json answer(Service& service, const Json& body) {
    const auto reply = ask(service, body);
    EXPECT_EQ(reply->wait_for_response().status, 200)
        << reply->wait_for_response().body;
    return reply->wait_for_json();
  }
  /** What a new server says that knows nothing but this adapter. */
  Json said_alone(const std::string& id, const std::string& text) const {
    const auto service = serve(
        id == "base" ? std::vector<std::string>{} : std::vector{id}, false);
    return answer(*service, chat({{"adapter", id}}, text))["choices"];
  }
  static int cached_tokens(const Json& answer) {
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"];
  }

  static void expect_refused(
      const std::shared_ptr<FakeReply>& reply,
      int status,
      const std::string& param,
      const std::vector<std::string>& parts) {
    EXPECT_EQ(reply->wait_for_response().status, status);
    const Json error = reply->wait_for_json()["error"];
    EXPECT_EQ(error["param"], param) << error;
    const auto message = error["message"].get<std::string>();
    for (const std::string& part : parts) {
      EXPECT_NE(message.find(part), std::string::npos) << message;
    }
  }

  static std::vector<std::string> ids(
      Service& service,
      const std::string& path) {
    const Json list = send(service, "GET", path)->wait_for_json();
    std::vector<std::string> found;
    for (const Json& item : list["data"]) {
      found.push_back(item["id"]);
    }
    return found;
  }

  test::ScratchFolder scratch_;
  fs::path root_ = scratch_ / "root";
  ServedModel model_ = testing::served_tiny();
};

TEST_F(ServiceAdaptersTest, OneBatchAnswersAsServersOfOneAdapterEach) {
  const auto service = serve({"a", "b", "c"});
  std::map<std::string, std::vector<std::shared_ptr<FakeReply>>> replies;
  for (const char* end : {"One", "Two"}) {
    for (const char* id : {"a", "base", "b", "c"}) {
      replies[id].push_back(ask(*service, chat({{"adapter", id}}, end)));
    }
  }
  // All of them first: one engine at a time may compute.
  std::map<std::string, std::vector<Json>> said;
  for (const auto& [id, of_adapter] : replies) {
    for (const auto& reply : of_adapter) {
      said[id].push_back(reply->wait_for_json()["choices"]);
    }
  }
  std::set<std::string> different;
  for (const auto& [id, choices] : said) {
    EXPECT_EQ(choices[0], said_alone(id, "One"));
    EXPECT_EQ(choices[1], said_alone(id, "Two"));
    different.insert(choices[0].dump());
  }
  EXPECT_EQ(different.size(), 4U);
}

TEST_F(ServiceAdaptersTest, KeptPrefixesAreApartByAdapter) {
  const auto service = serve({"a", "b"});
  const std::string text = long_text();
  for (const char* id : {"base", "a", "b"}) {
    const Json first = answer(*service, chat({{"adapter", id}}, text));
    EXPECT_EQ(cached_tokens(first), 0) << id;
    EXPECT_EQ(first["choices"], said_alone(id, text)) << id;
  }
  for (const char* id : {"b", "base", "a"}) {
    const Json again = answer(*service, chat({{"adapter", id}}, text));
    EXPECT_GT(cached_tokens(again), 64) << id;
    EXPECT_EQ(again["choices"], said_alone(id, text)) << id;
  }
  // Another adapter under an old name is another one.
  EXPECT_EQ(
      send(*service, "DELETE", "/v1/adapters/b")->wait_for_response().status,
      200);
  EXPECT_EQ(
      send(*service, "POST", "/v1/adapters", {{"path", "c"}, {"id", "b"}})
          ->wait_for_response()
          .status,
      200);
  const Json other = answer(*service, chat({{"adapter", "b"}}, text));
  EXPECT_EQ(cached_tokens(other), 0);
  EXPECT_EQ(other["choices"], said_alone("c", text));
}

TEST_F(ServiceAdaptersTest, EveryWayToNameOneIsTheSame) {
  const auto service = serve({"a", "b"});
  const Json of_a = answer(*service, chat({{"adapter", "a"}}));
  EXPECT_EQ(of_a["model"], "tiny:a");
  for (const Json& way : std::vector<Json>{
           {{"model", "tiny:a"}},
           {{"model", "default:a"}},
           {{"model", "tiny"}, {"adapters", "a"}},
           {{"adapters", {{{"id", "a"}}}}},
           {{"adapters", {{{"id", "a"}, {"weight", 1}}}},
            {"adapter", nullptr}}}) {
    const Json same = answer(*service, chat(way));
    EXPECT_EQ(same["choices"], of_a["choices"]) << way;
    EXPECT_EQ(same["model"], "tiny:a") << way;
  }
  const Json of_none = answer(*service, chat(Json::object()));
  for (const Json& way : std::vector<Json>{
           {{"adapter", "base"}},
           {{"adapter", ""}},
           {{"adapters", Json::array()}},
           {{"model", "tiny:base"}}}) {
    const Json same = answer(*service, chat(way));
    EXPECT_EQ(same["choices"], of_none["choices"]) << way;
    EXPECT_EQ(same["model"], "tiny") << way;
  }
  const Json sum = answer(*service, chat({{"model", "tiny:a*0.5+b"}}));
  EXPECT_EQ(sum["model"], "tiny:a*0.5+b");
  const Json list{{{"id", "a"}, {"weight", 0.5}}, {{"id", "b"}}};
  EXPECT_EQ(
      answer(*service, chat({{"adapters", list}}))["choices"], sum["choices"]);
  EXPECT_NE(sum["choices"], of_a["choices"]);
}

TEST_F(ServiceAdaptersTest, RefusesAdaptersThatAreNotThereOrTooMany) {
  const auto service = serve({"a", "b"});
  const auto refused = [&](const Json& way,
                           int status,
                           const std::string& param,
                           const std::vector<std::string>& parts) {
    expect_refused(ask(*service, chat(way)), status, param, parts);
  };
  refused({{"adapter", "x"}}, 404, "adapter", {"'x'", "a, b"});
  refused({{"adapters", "a+x"}}, 404, "adapters", {"'x'", "a, b"});
  refused({{"model", "tiny:x"}}, 404, "model", {"'x'", "a, b"});
  refused({{"model", "huge:a"}}, 404, "model", {"huge:a", "tiny:NAME", "a, b"});
  refused({{"model", "tiny:"}}, 404, "model", {"tiny:"});
  refused({{"adapter", "a+"}}, 400, "adapter", {"a+", "a*0.5+b"});
  refused(
      {{"model", "tiny:a"}, {"adapter", "a"}}, 400, "adapter", {"one place"});
  std::string many = "a";
  for (int i = 0; i < 8; ++i) {
    many += "+a";
  }
  refused({{"adapter", many}}, 400, "adapter", {"found 9", "at most 8"});
  answer(*service, chat({{"adapter", "a"}})); // goes on
}

TEST_F(ServiceAdaptersTest, MountsListsAndUnmounts) {
  const auto service = serve({"a"});
  const auto mounted =
      send(*service, "POST", "/v1/adapters", {{"path", "c"}, {"id", "team/c"}});
  EXPECT_EQ(mounted->wait_for_response().status, 200);
  const Json described = mounted->wait_for_json();
  EXPECT_EQ(described["object"], "adapter");
  EXPECT_EQ(described["path"], "c");
  EXPECT_EQ(described["base_model"], "small");
  EXPECT_EQ(described["largest_rank"], 4);
  EXPECT_GT(described["created"], 1'500'000'000);
  EXPECT_EQ(
      described["resident_bytes"], 2 * described["parameters"].get<int>());
  EXPECT_EQ(
      send(*service, "GET", "/v1/adapters/team/c")->wait_for_json(), described);
  send(*service, "POST", "/v1/adapters", {{"path", "b"}})->wait_for_response();
  using Ids = std::vector<std::string>;
  EXPECT_EQ(ids(*service, "/v1/adapters"), (Ids{"a", "b", "team/c"}));
  EXPECT_EQ(
      ids(*service, "/v1/models"),
      (Ids{"tiny", "tiny:a", "tiny:b", "tiny:team/c"}));
  const Json model =
      send(*service, "GET", "/v1/models/tiny:team/c")->wait_for_json();
  EXPECT_EQ(model["parent"], "tiny");
  EXPECT_EQ(
      send(*service, "GET", "/v1/optiq/model")->wait_for_json()["adapters"],
      (Ids{"a", "b", "team/c"}));

  const auto deleted = send(*service, "DELETE", "/v1/adapters/team/c");
  EXPECT_EQ(deleted->wait_for_response().status, 200);
  EXPECT_EQ(deleted->wait_for_json()["deleted"], true);
  EXPECT_EQ(ids(*service, "/v1/adapters"), (Ids{"a", "b"}));
  for (const char* path : {"/v1/adapters/team/c", "/v1/models/tiny:team/c"}) {
    EXPECT_EQ(send(*service, "GET", path)->wait_for_response().status, 404);
  }
  expect_refused(
      send(*service, "DELETE", "/v1/adapters/team/c"),
      404,
      "id",
      {"team/c", "a, b"});
}

TEST_F(ServiceAdaptersTest, RefusesToMountWhatItMayNotOrCannot) {
  const auto service = serve({"a"});
  const auto refused = [&](const Json& body,
                           int status,
                           const std::string& param,
                           const std::vector<std::string>& parts) {
    expect_refused(
        send(*service, "POST", "/v1/adapters", body), status, param, parts);
  };
  fs::rename(root_ / "c", scratch_ / "outside");
  fs::create_directory_symlink(scratch_ / "outside", root_ / "link");
  refused({{"path", "../outside"}}, 403, "path", {"outside of"});
  refused({{"path", (scratch_ / "outside").string()}}, 403, "path", {});
  refused({{"path", "link"}}, 403, "path", {"a link to what lies outside"});
  refused({{"path", "none"}}, 400, "path", {"\"none\"", "no such folder"});
  refused({{"path", "a"}}, 409, "id", {"'a' is mounted"});
  refused({{"path", "b"}, {"id", "a"}}, 409, "id", {"'a' is mounted"});
  refused({{"path", "b"}, {"id", "b c"}}, 400, "id", {"\"b c\"", "letters"});
  refused({{"path", "b"}, {"id", "base"}}, 400, "id", {"the model alone"});
  refused({{"id", "b"}}, 400, "path", {"nothing"});
  // Folders that are broken, each in its way.
  fs::create_directory(root_ / "empty");
  refused({{"path", "empty"}}, 400, "path", {"adapter_config.json"});
  fs::copy(root_ / "b", root_ / "short");
  const fs::path tensors = root_ / "short" / "adapter_model.safetensors";
  fs::resize_file(tensors, fs::file_size(tensors) / 2);
  refused({{"path", "short"}}, 400, "path", {tensors.string()});
  fs::copy(root_ / "b", root_ / "unread");
  std::ofstream(root_ / "unread" / "adapter_config.json") << "{";
  refused({{"path", "unread"}}, 400, "path", {"adapter_config.json"});

  EXPECT_EQ(ids(*service, "/v1/adapters"), std::vector<std::string>{"a"});
  answer(*service, chat({{"adapter", "a"}})); // goes on
}

TEST_F(ServiceAdaptersTest, WithoutARootNothingChanges) {
  const auto service = serve({"a"}, false);
  for (const auto& reply :
       {send(*service, "POST", "/v1/adapters", {{"path", "b"}}),
        send(*service, "DELETE", "/v1/adapters/a")}) {
    EXPECT_EQ(reply->wait_for_response().status, 403);
    const Json error = reply->wait_for_json()["error"];
    EXPECT_NE(
        error["message"].get<std::string>().find("--adapters-root"),
        std::string::npos);
  }
  EXPECT_EQ(ids(*service, "/v1/adapters"), std::vector<std::string>{"a"});
  EXPECT_EQ(
      send(*service, "GET", "/v1/adapters/a")->wait_for_json()["path"],
      nullptr); // where it lies is nobody's business
}

TEST_F(ServiceAdaptersTest, WhatRunsGoesOnWhenItsAdapterIsUnmounted) {
  const auto service = serve({"a"});
  Json body = chat({{"adapter", "a"}, {"stream", true}});
  body["max_tokens"] = 60;
  body["temperature"] = 0;
  const Json whole = answer(*serve({"a"}), [&] {
    Json not_streamed = body;
    not_streamed["stream"] = false;
    return not_streamed;
  }());
  const auto stream = ask(*service, body);
  stream->wait_for_bytes(1);
  EXPECT_EQ(
      send(*service, "DELETE", "/v1/adapters/a")->wait_for_response().status,
      200);
  EXPECT_EQ(
      testing::parse_events(stream->wait_for_end()).joined("content"),
      whole["choices"][0]["message"]["content"]);
  expect_refused(
      ask(*service, chat({{"adapter", "a"}})), 404, "adapter", {"none is"});
}

TEST_F(ServiceAdaptersTest, ThoseThatNobodyUsesMakeRoomAndComeAgain) {
  const auto bytes_of_one = [&] {
    return send(*serve({"a"}), "GET", "/v1/adapters/a")
        ->wait_for_json()["resident_bytes"]
        .get<std::size_t>();
  }();
  const auto service = serve({"a", "b", "c"}, true, bytes_of_one);
  for (const char* id : {"a", "b", "c", "a"}) {
    EXPECT_EQ(
        answer(*service, chat({{"adapter", id}}))["choices"],
        said_alone(id, "How many?"));
  }
  expect_refused(
      ask(*service, chat({{"adapter", "a+b"}})), 429, "adapter", {"room"});
  const testing::PrometheusPage page(
      send(*service, "GET", "/metrics")->wait_for_response().body);
  EXPECT_EQ(page["optiq_adapters_mounted"], 3);
  EXPECT_EQ(page["optiq_adapters_resident"], 1);
  EXPECT_EQ(page["optiq_adapter_bytes"], bytes_of_one);
  EXPECT_EQ(page["optiq_adapter_max_bytes"], bytes_of_one);
  EXPECT_EQ(page["optiq_adapter_requests_total{adapter=\"a\"}"], 2);
  EXPECT_EQ(page["optiq_adapter_requests_total{adapter=\"b\"}"], 1);
}

/** The I/O thread calls: it neither reads files nor waits for who does. */
TEST_F(ServiceAdaptersTest, WhatIsShownWaitsForNothing) {
  const auto service = serve({"a"});
  std::string text;
  while (text.size() < 400'000) {
    text += long_text();
  }
  const auto reading = send(*service, "POST", "/tokenize", {{"content", text}});
  const auto mounting = send(*service, "POST", "/v1/adapters", {{"path", "b"}});
  const auto deleting = send(*service, "DELETE", "/v1/adapters/a");
  for (const char* path :
       {"/v1/adapters",
        "/v1/adapters/a",
        "/v1/models",
        "/v1/optiq/model",
        "/metrics"}) {
    EXPECT_TRUE(send(*service, "GET", path)->has_response()) << path;
  }
  EXPECT_EQ(reading->wait_for_response().status, 200);
  EXPECT_EQ(mounting->wait_for_response().status, 200);
  EXPECT_EQ(deleting->wait_for_response().status, 200);
  EXPECT_EQ(ids(*service, "/v1/adapters"), std::vector<std::string>{"b"});
}

TEST_F(ServiceAdaptersTest, StartsWithWhatCanBeMounted) {
  test::expect_error(ErrorKind::NotFound, {"adapter_config.json"}, [&] {
    serve({"missing"});
  });
  test::expect_error(ErrorKind::InvalidInput, {"is mounted from"}, [&] {
    serve({"a", "a"});
  });
  root_ /= "missing";
  test::expect_error(
      ErrorKind::InvalidInput, {"--adapters-root", "missing"}, [&] {
        serve({});
      });
}

} // namespace
} // namespace optiq::server
