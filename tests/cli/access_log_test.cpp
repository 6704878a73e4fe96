#include "optiq/cli/access_log.h"

#include <gtest/gtest.h>

#include "optiq/artifacts/json.h"

namespace optiq::cli {
namespace {

const server::HttpAccess kAccess{
    .id = "00c0ffee00000001",
    .peer = "127.0.0.1:41000",
    .method = "POST",
    .target = "/v1/completions",
    .status = 200,
    .bytes_sent = 512,
    .seconds = 0.25};

TEST(AccessLog, IsALineOfText) {
  EXPECT_EQ(
      access_line(kAccess, LogFormat::Text, 1'795'000'000),
      "2026-11-18T11:06:40Z 127.0.0.1:41000 \"POST /v1/completions\" 200 "
      "512 B 0.250 s 00c0ffee00000001");
  server::HttpAccess gone = kAccess;
  gone.gone = true;
  EXPECT_TRUE(access_line(gone, LogFormat::Text, 0).ends_with("0001 gone"));
}

TEST(AccessLog, IsAnObjectOfJson) {
  const std::string line = access_line(kAccess, LogFormat::Json, 1'795'000'000);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const auto json = artifacts::parse_json(line, "line");
  EXPECT_EQ(json.at("time"), "2026-11-18T11:06:40Z");
  EXPECT_EQ(json.at("status"), 200);
  EXPECT_EQ(json.at("bytes"), 512);
  EXPECT_EQ(json.at("seconds"), 0.25);
  EXPECT_EQ(json.at("gone"), false);
}

/** A method is any token, a target came from a stranger. */
TEST(AccessLog, EscapesWhatStrangersSent) {
  server::HttpAccess access = kAccess;
  access.method = "a\x1b[2J";
  access.target = "/\n\xff";
  for (const LogFormat format : {LogFormat::Text, LogFormat::Json}) {
    const std::string line = access_line(access, format, 0);
    EXPECT_EQ(line.find('\x1b'), std::string::npos);
    EXPECT_EQ(line.find('\n'), std::string::npos);
    EXPECT_EQ(line.find('\xff'), std::string::npos);
  }
}

} // namespace
} // namespace optiq::cli
