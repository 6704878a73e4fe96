#include "optiq/cli/client_lines.h"

#include <algorithm>

#include <gtest/gtest.h>

namespace optiq::cli {
namespace {

TEST(ClientLines, AskOverTheNetwork) {
  EXPECT_EQ(
      client_lines({.host = "127.0.0.1", .port = 8080}, "tiny"),
      R"x(curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' -d '{"model":"tiny","messages":[{"role":"user","content":"Hello"}]}'
python3 -c 'from openai import OpenAI; client = OpenAI(base_url="http://127.0.0.1:8080/v1", api_key="none"); print(client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "Hello"}]).choices[0].message.content)'
optiq chat http://127.0.0.1:8080
)x");
}

TEST(ClientLines, TakeTheKeyFromTheEnvironment) {
  const std::string lines =
      client_lines({.host = "0.0.0.0", .port = 1, .needs_key = true}, "tiny");
  EXPECT_NE(
      lines.find("-H \"Authorization: Bearer $OPTIQ_API_KEY\""),
      std::string::npos);
  EXPECT_NE(
      lines.find("api_key=os.environ[\"OPTIQ_API_KEY\"]"), std::string::npos);
}

TEST(ClientLines, AskOverAUnixSocket) {
  const std::string lines = client_lines({.unix_socket = "/tmp/it's"}, "tiny");
  EXPECT_NE(
      lines.find("curl --unix-socket '/tmp/it'\\''s' http://localhost/v1/"),
      std::string::npos)
      << lines;
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 1) << lines;
}

TEST(ClientLines, QuoteWhatAShellWouldRead) {
  const std::string lines =
      client_lines({.host = "::1", .port = 2}, "a'b\"$(c)");
  EXPECT_NE(lines.find("http://[::1]:2/"), std::string::npos);
  EXPECT_NE(lines.find(R"x("model":"a'\''b\"$(c)")x"), std::string::npos)
      << lines;
}

TEST(ClientLines, NameAnAddressThatAClientReaches) {
  EXPECT_EQ(base_url({.host = "0.0.0.0", .port = 5}), "http://127.0.0.1:5");
  EXPECT_EQ(base_url({.host = "::", .port = 5}), "http://127.0.0.1:5");
  EXPECT_EQ(base_url({.host = "a.example", .port = 5}), "http://a.example:5");
}

} // namespace
} // namespace optiq::cli
