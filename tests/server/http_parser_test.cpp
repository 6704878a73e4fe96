#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "server/http_cases.h"

#include "optiq/server/http_parser_impl.h"

namespace optiq::server {
namespace {

using Progress = RequestParser::Progress;

/** Reads the bytes `step` at a time. */
Progress
read(RequestParser& parser, const std::string& bytes, std::size_t step) {
  Progress progress = Progress::NeedsMore;
  std::string input;
  for (std::size_t at = 0; at < bytes.size(); at += step) {
    input += bytes.substr(at, step);
    do {
      progress = parser.read(input);
    } while (progress == Progress::HeaderDone);
    if (progress != Progress::NeedsMore) {
      break;
    }
  }
  return progress;
}

class HttpParser : public ::testing::TestWithParam<HttpCase> {};

/** Whole, and however the network cuts it. */
TEST_P(HttpParser, RefusesWhatIsAmbiguous) {
  for (const std::size_t step :
       {std::size_t{100'000}, std::size_t{1}, std::size_t{7}}) {
    RequestParser parser(kCaseHeaderBytes, kCaseBodyBytes);
    const Progress progress = read(parser, GetParam().bytes, step);
    const int status =
        progress == Progress::Refused ? parser.refusal().status : 0;
    EXPECT_EQ(status, GetParam().status)
        << "step " << step << ": " << parser.refusal().message;
    if (GetParam().status == 0) {
      EXPECT_EQ(progress, Progress::Done) << "step " << step;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Table,
    HttpParser,
    ::testing::ValuesIn(http_cases()),
    [](const auto& info) { return "case_" + std::to_string(info.index); });

RequestParser parsed(const std::string& bytes) {
  RequestParser parser(kCaseHeaderBytes, kCaseBodyBytes);
  EXPECT_EQ(read(parser, bytes, bytes.size()), Progress::Done);
  return parser;
}

TEST(HttpParserResult, GivesTheRequestInParts) {
  auto parser = parsed(
      "POST /v1/a%20b%2fc?x=%41&y HTTP/1.1\r\nHost: h\r\nX-Thing:  v \r\n"
      "Content-Length: 3\r\n\r\nabc");
  const HttpRequest& request = parser.request();
  EXPECT_EQ(request.method, "POST");
  EXPECT_EQ(request.path, "/v1/a b/c");
  EXPECT_EQ(request.query, "x=%41&y");
  EXPECT_EQ(request.header("x-thing"), "v");
  EXPECT_EQ(request.header("absent"), std::nullopt);
  EXPECT_EQ(request.body, "abc");
  EXPECT_EQ(parser.target(), "/v1/a%20b%2fc?x=%41&y");
  EXPECT_TRUE(parser.keep_alive());
}

TEST(HttpParserResult, JoinsChunksAndDropsTrailers) {
  auto parser = parsed(
      kCasePost +
      "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2;q\r\nbc\r\n0\r\n"
      "Authorization: Bearer x\r\n\r\n");
  EXPECT_EQ(parser.request().body, "abc");
  EXPECT_EQ(parser.request().header("authorization"), std::nullopt);
}

/** How a request with a trailer of so many bytes is read in pieces. */
Progress with_trailer(std::size_t bytes, std::size_t piece) {
  const std::string sent = kCasePost +
      "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n" +
      "x:" + std::string(bytes - 2, 'y') + "\r\n\r\n";
  RequestParser parser(kCaseHeaderBytes, kCaseBodyBytes);
  return read(parser, sent, piece);
}

TEST(HttpParserResult, TrailersHaveALimitInWhateverPiecesTheyCome) {
  // Beside them the ends of their line and of one that is empty.
  constexpr std::size_t kMost = kCaseHeaderBytes - 4;
  for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, kMost * 4}) {
    EXPECT_EQ(with_trailer(kMost, piece), Progress::Done) << piece;
    EXPECT_EQ(with_trailer(kMost + 1, piece), Progress::Refused) << piece;
  }
}

TEST(HttpParserResult, TakesTheHostOfTheAbsoluteForm) {
  auto parser = parsed("GET http://b:1 HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(parser.request().header("host"), "b:1");
  EXPECT_EQ(parser.request().path, "/");
}

TEST(HttpParserResult, CallsHeadGet) {
  auto parser = parsed("HEAD / HTTP/1.0\r\n\r\n");
  EXPECT_EQ(parser.request().method, "GET");
  EXPECT_TRUE(parser.is_head());
  EXPECT_TRUE(parser.is_http10());
  EXPECT_FALSE(parser.keep_alive());
}

TEST(HttpParserResult, LeavesTheNextRequest) {
  RequestParser parser(kCaseHeaderBytes, kCaseBodyBytes);
  std::string input = "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b";
  EXPECT_EQ(parser.read(input), Progress::Done);
  EXPECT_EQ(input, "GET /b");
}

} // namespace
} // namespace optiq::server
