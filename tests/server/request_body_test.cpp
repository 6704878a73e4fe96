#include "optiq/server/request_body.h"

#include <string>

#include <gtest/gtest.h>

#include "support/refused_field.h"

namespace optiq::server {
namespace {

TEST(RequestBody, RefusesWhatIsNoJsonObject) {
  const std::string deep(300, '[');
  for (const std::string& body :
       {std::string(),
        std::string("{"),
        std::string("[1]"),
        std::string("\"text\""),
        std::string("null"),
        std::string(R"({"a": NaN})"),
        std::string(R"({"a": -Infinity})"),
        std::string(R"({"a": 1e999})"),
        std::string(R"({"a": "\ud800"})"),
        std::string("{\"a\": \"\xff\"}"),
        std::string("{\"a\": \"\0\"}", 10),
        std::string(R"({"a": 1, "a": 2})"),
        std::string(R"({"b": {"a": 1, "a": 2}})"),
        R"({"a": )" + deep}) {
    const ApiError error =
        testing::refusal_of([&] { parse_body(body, "/test"); });
    EXPECT_EQ(error.status, 400) << body;
    EXPECT_NE(error.message.find("/test"), std::string::npos) << error.message;
  }
}

TEST(RequestBody, NamesTheFieldWithAZeroCharacter) {
  testing::expect_refused("a", "invalid_value", "zero character", [] {
    parse_body(R"({"a": [{"b": "x\u0000y"}]})", "/test");
  });
  testing::expect_refused("a", "invalid_value", "zero character", [] {
    parse_body(R"({"a": {"b\u0000": 1}})", "/test");
  });
}

TEST(RequestBody, ListsWhatIsIgnored) {
  const Schema schema = object({{"known", any()}});
  const auto ignored = [&](const char* body) {
    return ignored_members(parse_body(body, "/test"), schema);
  };
  EXPECT_EQ(ignored(R"({"known": 1})"), "");
  EXPECT_EQ(ignored(R"({"known": 1, "xtc": 1, "min-p": 2})"), "xtc, min-p");
  EXPECT_EQ(ignored(R"({"a\r\nb": 1, "ok": 2, "é": 3})"), "ok and 2 more");
}

} // namespace
} // namespace optiq::server
