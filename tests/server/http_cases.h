#pragma once

#include <cstddef>
#include <string>
#include <vector>

/** Requests that are plain, ambiguous or too large (RFC 9112, 11.2): the table
 * of the parser's test, and seeds of its fuzz target. */
namespace optiq::server {

/** The limits that they are about. */
inline constexpr std::size_t kCaseHeaderBytes = 1024;
inline constexpr std::size_t kCaseBodyBytes = 2000;

/** Bytes of a request, and what becomes of it. */
struct HttpCase {
  const char* name;
  std::string bytes;
  int status; // 0: nothing is wrong with it
};

inline const std::string kCasePost =
    "POST /v1/completions HTTP/1.1\r\nHost: a\r\n";

inline const std::vector<HttpCase>& http_cases() {
  static const std::vector<HttpCase> kCases = {
      {"get", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0},
      {"empty lines before", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 0},
      {"1.0 without host", "GET / HTTP/1.0\r\n\r\n", 0},
      {"length", kCasePost + "Content-Length: 3\r\n\r\nabc", 0},
      {"chunked",
       kCasePost + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
       0},
      {"CHUNKED",
       kCasePost + "Transfer-Encoding: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
       0},
      {"chunk extension",
       kCasePost +
           "Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n",
       0},
      {"trailer",
       kCasePost +
           "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n",
       0},
      {"absolute form", "GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n", 0},

      // Two lengths: where does the next request begin?
      {"CL and TE",
       kCasePost + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
       400},
      {"TE and CL",
       kCasePost + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
       400},
      {"two lengths",
       kCasePost + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
       400},
      {"two equal lengths",
       kCasePost + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
       400},
      {"a list of lengths", kCasePost + "Content-Length: 3, 3\r\n\r\nabc", 400},
      {"+3", kCasePost + "Content-Length: +3\r\n\r\nabc", 400},
      {"-3", kCasePost + "Content-Length: -3\r\n\r\nabc", 400},
      {"0x3", kCasePost + "Content-Length: 0x3\r\n\r\nabc", 400},
      {"no length", kCasePost + "Content-Length:\r\n\r\nabc", 400},
      {"2^64",
       kCasePost + "Content-Length: 18446744073709551616\r\n\r\nabc",
       400},
      {"two TE",
       kCasePost +
           "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
       400},
      {"TE of two",
       kCasePost + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
       501},
      {"chunked twice",
       kCasePost + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
       501},
      {"TE not chunked",
       kCasePost + "Transfer-Encoding: xchunked\r\n\r\n",
       501},
      {"TE identity", kCasePost + "Transfer-Encoding: identity\r\n\r\n", 501},
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
      {"space before colon", kCasePost + "Content-Length : 3\r\n\r\nabc", 400},
      {"TE and space before colon",
       kCasePost + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
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
       kCasePost + "Transfer-Encoding: chunked\r\n\r\n-2\r\nabc\r\n0\r\n\r\n",
       400},
      {"chunk of +3",
       kCasePost + "Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
       400},
      {"chunk of 0x3",
       kCasePost + "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
       400},
      {"chunk of 2^64",
       kCasePost + "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\nabc",
       400},
      {"chunk of nothing",
       kCasePost + "Transfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n",
       400},
      {"chunk extension without end",
       kCasePost +
           "Transfer-Encoding: chunked\r\n\r\n3;a=\"\r\nabc\r\n0\r\n\r\n",
       400},
      {"chunk extension over two lines",
       kCasePost +
           "Transfer-Encoding: chunked\r\n\r\n3;a=\"\r\n\"\r\n0\r\n\r\n",
       400},
      {"chunk longer than said",
       kCasePost + "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
       400},
      {"chunk ends in LF",
       kCasePost + "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
       400},
      {"length in a trailer",
       kCasePost +
           "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 3\r\n\r\n",
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
       kCasePost + "Expect: 200-maybe\r\nContent-Length: 3\r\n\r\nabc",
       417},

      // Limits.
      {"header of 1024",
       "GET / HTTP/1.1\r\nHost: a\r\nx: " + std::string(992, 'x') + "\r\n\r\n",
       0},
      {"header of 1025",
       "GET / HTTP/1.1\r\nHost: a\r\nx: " + std::string(993, 'x') + "\r\n\r\n",
       431},
      {"header without end",
       "GET / HTTP/1.1\r\n" + std::string(4000, 'x'),
       431},
      {"line without end", std::string(4000, 'x'), 431},
      {"body of 2000",
       kCasePost + "Content-Length: 2000\r\n\r\n" + std::string(2000, 'x'),
       0},
      {"body of 2001", kCasePost + "Content-Length: 2001\r\n\r\n", 413},
      {"chunks of 2001",
       kCasePost + "Transfer-Encoding: chunked\r\n\r\n3e8\r\n" +
           std::string(1000, 'x') + "\r\n3e9\r\n",
       413},
      {"chunk line without end",
       kCasePost + "Transfer-Encoding: chunked\r\n\r\n1;" +
           std::string(4000, 'x'),
       431},
      {"trailers without end",
       kCasePost + "Transfer-Encoding: chunked\r\n\r\n0\r\nx: " +
           std::string(4000, 'x'),
       431},
  };
  return kCases;
}

} // namespace optiq::server
