#include "optiq/io/http.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace optiq::io {
namespace {

TEST(Http, OriginsCompareSchemeHostAndPort) {
  const Origin hub = origin_of("https://huggingface.co");
  EXPECT_EQ(hub, origin_of("https://HuggingFace.co:443/a?b#c"));
  EXPECT_NE(hub, origin_of("http://huggingface.co:443"));
  EXPECT_NE(hub, origin_of("https://huggingface.co:444"));
  EXPECT_NE(hub, origin_of("https://huggingface.co.evil.example"));
  EXPECT_NE(hub, origin_of("https://cdn.huggingface.co"));
}

TEST(Http, RefusesWhatIsNoWebAddress) {
  for (const char* url :
       {"",
        "huggingface.co",
        "file:///etc/passwd",
        "ftp://a.example",
        "https://me:secret@a.example",
        "https://",
        "https://a.example:99999"}) {
    SCOPED_TRACE(url);
    test::expect_error(
        ErrorKind::InvalidInput, {"https address"}, [&] { origin_of(url); });
  }
}

TEST(Http, KnowsPrivateAddresses) {
  for (const char* address :
       {"0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.255",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "fdff::1",
        "::ffff:10.0.0.1",
        "no address"}) {
    EXPECT_TRUE(is_private_address(address)) << address;
  }
  for (const char* address :
       {"9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.0.0.1",
        "128.0.0.1",
        "169.253.0.1",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "192.169.0.0",
        "2001:db8::1",
        "::ffff:8.8.8.8"}) {
    EXPECT_FALSE(is_private_address(address)) << address;
  }
}

TEST(Http, RefusesTokensThatWouldLeak) {
  const Origin plain = origin_of("http://a.example");
  test::expect_error(ErrorKind::Denied, {"a.example", "clear text"}, [&] {
    HttpClient(plain, "secret", "");
  });
  HttpClient(plain, "", "");
  HttpClient(origin_of("http://127.0.0.1:1"), "secret", "");
  HttpClient(origin_of("http://[::1]:1"), "secret", "");
  for (const char* token : {"a b", "a\r\nX: y", "\xc3\xa9"}) {
    test::expect_error(ErrorKind::InvalidInput, {"token"}, [&] {
      HttpClient(origin_of("https://a.example"), token, "");
    });
  }
}

} // namespace
} // namespace optiq::io
