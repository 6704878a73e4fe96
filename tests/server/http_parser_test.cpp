#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "optiq/server/http_parser_impl.h"

namespace optiq::server {
namespace {

using Progress = RequestParser::Progress;

constexpr std::size_t kMaxHeader = 1024;
constexpr std::size_t kMaxBody = 2000;

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

struct Case {
  const char* name;
  std::string bytes;
  int status; // 0: nothing is wrong with it
};

const std::string kPost = "POST /v1/completions HTTP/1.1\r\nHost: a\r\n";

const std::vector<Case> kCases = {
    {"get", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {"empty lines before", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {"1.0 without host", "GET / HTTP/1.0\r\n\r\n", 0},
    {"length", kPost + "Content-Length: 3\r\n\r\nabc", 0},
    {"chunked",
     kPost + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
     0},
    {"CHUNKED",
     kPost + "Transfer-Encoding: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
     0},
    {"chunk extension",
     kPost + "Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n",
     0},
    {"trailer",
     kPost + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n",
     0},
    {"absolute form", "GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n", 0},

    // Two lengths: where does the next request begin?
    {"CL and TE",
     kPost + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
     400},
    {"TE and CL",
     kPost + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
     400},
    {"two lengths",
     kPost + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
     400},
    {"two equal lengths",
     kPost + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
     400},
    {"a list of lengths", kPost + "Content-Length: 3, 3\r\n\r\nabc", 400},
    {"+3", kPost + "Content-Length: +3\r\n\r\nabc", 400},
    {"-3", kPost + "Content-Length: -3\r\n\r\nabc", 400},
    {"0x3", kPost + "Content-Length: 0x3\r\n\r\nabc", 400},
    {"no length", kPost + "Content-Length:\r\n\r\nabc", 400},
    {"2^64", kPost + "Content-Length: 18446744073709551616\r\n\r\nabc", 400},
    {"two TE",
     kPost + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
     400},
    {"TE of two",
     kPost + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
     501},
    {"chunked twice",
     kPost + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
     501},
    {"TE not chunked", kPost + "Transfer-Encoding: xchunked\r\n\r\n", 501},
    {"TE identity", kPost + "Transfer-Encoding: identity\r\n\r\n", 501},
    {"TE of 1.0",
     "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     400},

    // Lines that two readers split differently.
    {"NUL in header",
     std::string("GET / HTTP/1.1\r\nHost: a\r\nx: a\0b\r\n\r\n", 36),
     400},
    {"NUL in name",
     std::string("GET / HTTP/1.1\r\nHost: a\r\nx\0: a\r\n\r\n", 35),
     400},
    {"space before colon", kPost + "Content-Length : 3\r\n\r\nabc", 400},
    {"TE and space before colon",
     kPost + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
     400},
    {"fold", "GET / HTTP/1.1\r\nHost: a\r\nx: a\r\n b\r\n\r\n", 400},
    {"fold by tab", "GET / HTTP/1.1\r\nHost: a\r\nx: a\r\n\tb\r\n\r\n", 400},
    {"fold first", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
    {"bare CR", "GET / HTTP/1.1\r\nHost: a\r\nx: a\rb: c\r\n\r\n", 400},
    {"bare LF", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400},
    {"bare LF in value",
     "GET / HTTP/1.1\r\nHost: a\r\nx: a\nContent-Length: 3\r\n\r\n",
     400},
    {"no colon", "GET / HTTP/1.1\r\nHost: a\r\nabc\r\n\r\n", 400},
    {"no name", "GET / HTTP/1.1\r\nHost: a\r\n: abc\r\n\r\n", 400},

    // Chunks.
    {"chunk of -2",
     kPost + "Transfer-Encoding: chunked\r\n\r\n-2\r\nabc\r\n0\r\n\r\n",
     400},
    {"chunk of +3",
     kPost + "Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
     400},
    {"chunk of 0x3",
     kPost + "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
     400},
    {"chunk of 2^64",
     kPost + "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\nabc",
     400},
    {"chunk of nothing",
     kPost + "Transfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n",
     400},
    {"chunk longer than said",
     kPost + "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
     400},
    {"chunk ends in LF",
     kPost + "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
     400},
    {"length in a trailer",
     kPost + "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 3\r\n\r\n",
     400},

    // The first line, and whom it is for.
    {"no host", "GET / HTTP/1.1\r\n\r\n", 400},
    {"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
    {"not a path", "GET v1 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"* of GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"escaped NUL", "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"half an escape", "GET /%4 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"bytes of UTF-8", "GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
    {"HTTP/0.9", "GET /\r\n\r\n", 400},
    {"TLS", "\x16\x03\x01\x02\r\n\r\n", 400},
    {"another expectation",
     kPost + "Expect: 200-maybe\r\nContent-Length: 3\r\n\r\nabc",
     417},

    // Limits.
    {"header of 1024",
     "GET / HTTP/1.1\r\nHost: a\r\nx: " + std::string(992, 'x') + "\r\n\r\n",
     0},
    {"header of 1025",
     "GET / HTTP/1.1\r\nHost: a\r\nx: " + std::string(993, 'x') + "\r\n\r\n",
     431},
    {"header without end", "GET / HTTP/1.1\r\n" + std::string(4000, 'x'), 431},
    {"line without end", std::string(4000, 'x'), 431},
    {"body of 2000",
     kPost + "Content-Length: 2000\r\n\r\n" + std::string(2000, 'x'),
     0},
    {"body of 2001", kPost + "Content-Length: 2001\r\n\r\n", 413},
    {"chunks of 2001",
     kPost + "Transfer-Encoding: chunked\r\n\r\n3e8\r\n" +
         std::string(1000, 'x') + "\r\n3e9\r\n",
     413},
    {"chunk line without end",
     kPost + "Transfer-Encoding: chunked\r\n\r\n1;" + std::string(4000, 'x'),
     431},
    {"trailers without end",
     kPost +
         "Transfer-Encoding: chunked\r\n\r\n0\r\nx: " + std::string(4000, 'x'),
     431},
};

class HttpParser : public ::testing::TestWithParam<Case> {};

/** Whole, and however the network cuts it. */
TEST_P(HttpParser, RefusesWhatIsAmbiguous) {
  for (const std::size_t step :
       {std::size_t{100'000}, std::size_t{1}, std::size_t{7}}) {
    RequestParser parser(kMaxHeader, kMaxBody);
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
    ::testing::ValuesIn(kCases),
    [](const auto& info) { return "case_" + std::to_string(info.index); });

RequestParser parsed(const std::string& bytes) {
  RequestParser parser(kMaxHeader, kMaxBody);
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
      kPost +
      "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2;q\r\nbc\r\n0\r\n"
      "Authorization: Bearer x\r\n\r\n");
  EXPECT_EQ(parser.request().body, "abc");
  EXPECT_EQ(parser.request().header("authorization"), std::nullopt);
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
  RequestParser parser(kMaxHeader, kMaxBody);
  std::string input = "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b";
  EXPECT_EQ(parser.read(input), Progress::Done);
  EXPECT_EQ(input, "GET /b");
}

} // namespace
} // namespace optiq::server
