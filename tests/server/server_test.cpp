#include "optiq/server/server.h"

#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "support/raw_client.h"
#include "support/served_script.h"

namespace optiq::server {
namespace {

using std::chrono::milliseconds;
using test::RawClient;
using test::status_of;

std::string
request(const std::string& line, const std::string& body, bool key = true) {
  return line + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" +
      (key ? "x-api-key: key\r\n" : "") +
      "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

class ServerTest : public ::testing::Test {
 protected:
  std::string ask(const std::string& bytes) {
    RawClient client(server_.port());
    client.send(bytes);
    return client.read_all();
  }
  void open() {
    server_.open(std::make_unique<Service>(
        testing::scripted_served(), ServiceOptions{.access = rules_}));
  }

  const AccessRules rules_{
      .api_keys = {"key"},
      .allowed_origins = {"https://app.example"}};
  Server server_{{.port = 0}, rules_, nullptr};
};

TEST_F(ServerTest, AnswersThatItIsLoadingUntilItIsOpen) {
  for (const char* path : {"GET /health", "GET /ready", "GET /v1/models"}) {
    const std::string answer = ask(request(path, ""));
    EXPECT_EQ(status_of(answer), 503) << path;
    EXPECT_NE(answer.find("retry-after: 1"), std::string::npos);
  }
  open();
  EXPECT_EQ(status_of(ask(request("GET /health", ""))), 200);
  EXPECT_EQ(status_of(ask(request("GET /ready", ""))), 200);
  server_.close(milliseconds(0));
}

TEST_F(ServerTest, RefusesWithoutReadingTheBody) {
  open();
  RawClient client(server_.port());
  client.send(
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
      "Origin: https://app.example\r\nContent-Length: 1000000\r\n\r\n{");
  const std::string answer = client.read_all();
  EXPECT_EQ(status_of(answer), 401);
  // So that the page may read why.
  EXPECT_NE(
      answer.find("access-control-allow-origin: https://app.example"),
      std::string::npos)
      << answer;
}

TEST_F(ServerTest, StreamsAnAnswerOverTheWire) {
  open();
  const std::string answer = ask(request(
      "POST /v1/chat/completions",
      R"({"messages": [{"role": "user", "content": ":"}], "stream": true})"));
  EXPECT_EQ(status_of(answer), 200);
  EXPECT_NE(answer.find("data: [DONE]\n\n"), std::string::npos) << answer;
  EXPECT_TRUE(answer.ends_with("\r\n0\r\n\r\n"));
}

TEST_F(ServerTest, EndsOpenStreamsWithALastEvent) {
  open();
  RawClient client(server_.port());
  client.send(
      request("POST /v1/completions", R"({"prompt": "#", "stream": true})"));
  client.read_until("data: ");
  server_.close(milliseconds(20));
  const std::string rest = client.read_all();
  EXPECT_NE(rest.find("shutting_down"), std::string::npos);
  EXPECT_TRUE(rest.ends_with("\r\n0\r\n\r\n"));
}

TEST_F(ServerTest, GoesWithAnswersOpen) {
  open();
  RawClient client(server_.port());
  client.send(
      request("POST /v1/completions", R"({"prompt": "#", "stream": true})"));
  client.read_until("data: ");
} // the destructors do not wait, and touch nothing that has gone

} // namespace
} // namespace optiq::server
