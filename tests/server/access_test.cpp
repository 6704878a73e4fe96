#include "optiq/server/access.h"

#include <gtest/gtest.h>

#include "optiq/artifacts/json.h"

namespace optiq::server {
namespace {

HttpRequest request_with(Headers headers, std::string path = "/v1/models") {
  return {
      .method = "GET",
      .path = std::move(path),
      .headers = std::move(headers),
      .peer = "127.0.0.1:1"};
}

/** 0 where the request is let through. */
int status(const HttpRequest& request, const AccessRules& rules = {}) {
  const auto refusal = check_access(request, rules).refusal;
  return refusal ? refusal->status : 0;
}

std::optional<std::string> field(const Headers& headers, const char* name) {
  return HttpRequest{.headers = headers}.header(name);
}

TEST(Access, ServesAddressesAndLocalhostButNoOtherName) {
  for (const char* host :
       {"localhost",
        "LOCALHOST:8080",
        "127.0.0.1",
        "127.0.0.1:8080",
        "[::1]:80",
        "[fe80::1]",
        "192.168.1.5:8080",
        "app.localhost"}) {
    EXPECT_EQ(status(request_with({{"host", host}})), 0) << host;
  }
  for (const char* host :
       {"evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
        ":80",
        "[::1",
        "[::1]evil",
        "[]",
        "127.0.0.1:8080:9",
        "localhost:http",
        "127.0.0.1@evil",
        "0x7f.1x"}) {
    EXPECT_EQ(status(request_with({{"host", host}})), 403) << host;
  }
  EXPECT_EQ(
      status(
          request_with({{"host", "My.Example:80"}}),
          {.allowed_hosts = {"my.example"}}),
      0);
  EXPECT_EQ(status(request_with({})), 0); // HTTP/1.0
}

TEST(Access, ServesAnyNameOverAUnixSocket) {
  HttpRequest request = request_with({{"host", "any.example"}});
  request.peer = "unix";
  EXPECT_EQ(status(request), 0);
}

TEST(Access, RefusesPagesOfOtherOrigins) {
  const auto from = [](const char* origin) {
    return request_with({{"host", "127.0.0.1:8080"}, {"origin", origin}});
  };
  EXPECT_EQ(status(from("http://127.0.0.1:8080")), 0);
  EXPECT_EQ(status(from("https://127.0.0.1:8080")), 0);
  for (const char* origin :
       {"http://127.0.0.1:8081",
        "http://localhost:8080",
        "http://evil.example",
        "null",
        "",
        "http://127.0.0.1:8080.evil.example",
        "*"}) {
    EXPECT_EQ(status(from(origin)), 403) << origin;
  }
  const AccessRules rules{.allowed_origins = {"https://app.example"}};
  const Access listed = check_access(from("https://app.example"), rules);
  EXPECT_FALSE(listed.refusal);
  EXPECT_EQ(
      field(listed.headers, "access-control-allow-origin"),
      "https://app.example");
  EXPECT_EQ(field(listed.headers, "vary"), "origin");
  EXPECT_EQ(status(from("https://app.example.evil"), rules), 403);
}

TEST(Access, NeverAllowsAllOrigins) {
  const Access access = check_access(
      request_with({{"host", "localhost"}}), {.allowed_origins = {"http://a"}});
  EXPECT_EQ(field(access.headers, "access-control-allow-origin"), std::nullopt);
}

TEST(Access, AnswersPreflightsOfListedOriginsWithoutAKey) {
  HttpRequest request = request_with(
      {{"host", "localhost"},
       {"origin", "https://app.example"},
       {"access-control-request-headers", "authorization, content-type"}});
  request.method = "OPTIONS";
  const Access access = check_access(
      request,
      {.api_keys = {"secret"}, .allowed_origins = {"https://app.example"}});
  ASSERT_TRUE(access.refusal);
  EXPECT_EQ(access.refusal->status, 204);
  EXPECT_EQ(
      field(access.refusal->headers, "access-control-allow-headers"),
      "authorization, content-type");
  EXPECT_EQ(
      field(access.refusal->headers, "access-control-allow-methods"),
      "GET, HEAD, POST, DELETE, OPTIONS");
}

TEST(Access, AsksForOneOfTheKeys) {
  const AccessRules rules{.api_keys = {"first", "second key"}};
  const auto with = [](const char* name, const char* value) {
    return request_with({{"host", "localhost"}, {name, value}});
  };
  EXPECT_EQ(status(with("authorization", "Bearer first"), rules), 0);
  EXPECT_EQ(status(with("authorization", "bearer  second key"), rules), 0);
  EXPECT_EQ(status(with("x-api-key", "second key"), rules), 0);
  for (const char* value :
       {"Bearer",
        "Bearer ",
        "Bearer firs",
        "Bearer firstx",
        "Bearer First",
        "Basic first",
        "first",
        ""}) {
    EXPECT_EQ(status(with("authorization", value), rules), 401) << value;
  }
  EXPECT_EQ(status(with("x-api-key", ""), rules), 401);
  const auto refusal = check_access(with("x-api-key", "wrong"), rules).refusal;
  EXPECT_EQ(field(refusal->headers, "www-authenticate"), "Bearer");
  const auto error = artifacts::parse_json(refusal->body, "body").at("error");
  EXPECT_EQ(error.at("code"), "invalid_api_key");
  EXPECT_EQ(refusal->body.find("wrong"), std::string::npos);
}

TEST(Access, NamesTenantsByAHashOfTheirKeys) {
  const AccessRules rules{.api_keys = {"first", "second"}};
  const auto tenant = [&](const char* key) {
    return check_access(
               request_with({{"host", "localhost"}, {"x-api-key", key}}), rules)
        .tenant;
  };
  EXPECT_EQ(tenant("first").size(), 16u);
  EXPECT_EQ(tenant("first").find("first"), std::string::npos);
  EXPECT_NE(tenant("first"), tenant("second"));
  EXPECT_EQ(check_access(request_with({}), {}).tenant, "");
}

TEST(Access, LeavesThePageAndProbesOpen) {
  const AccessRules rules{.api_keys = {"key"}};
  for (const char* path : {"/", "/page/main.js", "/health", "/ready"}) {
    EXPECT_EQ(status(request_with({}, path), rules), 0) << path;
  }
  for (const char* path :
       {"/metrics", "/v1/models", "/health/", "//", "/tokenize"}) {
    EXPECT_EQ(status(request_with({}, path), rules), 401) << path;
  }
  // A name that is not served gets not even the page.
  EXPECT_EQ(status(request_with({{"host", "evil.example"}}, "/"), rules), 403);
}

TEST(Access, KnowsLoopback) {
  for (const char* host :
       {"localhost", "127.0.0.1", "127.1.2.3", "::1", "LocalHost"}) {
    EXPECT_TRUE(is_loopback(host)) << host;
  }
  for (const char* host :
       {"0.0.0.0",
        "::",
        "192.168.0.1",
        "128.0.0.1",
        "example.org",
        "127.0.0.1.example.org"}) {
    EXPECT_FALSE(is_loopback(host)) << host;
  }
}

} // namespace
} // namespace optiq::server
