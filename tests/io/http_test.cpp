#include "optiq/io/http.h"

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <utility>

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

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

TEST(Http, KnowsThisMachine) {
  for (const char* host :
       {"localhost", "127.0.0.1", "127.255.255.255", "[::1]"}) {
    EXPECT_TRUE(is_loopback(host)) << host;
  }
  for (const char* host :
       {"127.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0",
        "127.0.0.1 ",
        "128.0.0.1",
        "localhost.evil.example",
        "[::2]",
        "[::1].evil.example",
        ""}) {
    EXPECT_FALSE(is_loopback(host)) << host;
  }
}

/** A server on loopback that sends a piece of an endless answer every 50 ms,
 * and gives up after ten seconds. */
class SlowServer {
 public:
  explicit SlowServer(std::string piece) : piece_(std::move(piece)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    listener_ = ::socket(AF_INET, SOCK_STREAM, 0);
    EXPECT_EQ(
        ::bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    ::listen(listener_, 1);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    url_ = fmt::format("http://127.0.0.1:{}", ntohs(address.sin_port));
    thread_ = std::thread([this] { serve(); });
  }
  ~SlowServer() {
    is_over_ = true;
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    ::close(listener_);
  }
  SlowServer(const SlowServer&) = delete;
  SlowServer& operator=(const SlowServer&) = delete;

  const std::string& url() const {
    return url_;
  }

 private:
  void serve() {
    const int client = ::accept(listener_, nullptr, nullptr);
    std::string text = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
    for (int i = 0; i < 200 && !is_over_ && !text.empty(); ++i) {
      if (::send(client, text.data(), text.size(), MSG_NOSIGNAL) < 0) {
        break;
      }
      text = piece_;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    while (!is_over_) { // an empty piece: silence
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ::close(client);
  }

  std::string piece_;
  std::string url_;
  int listener_ = -1;
  std::atomic<bool> is_over_{false};
  std::thread thread_;
};

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

const auto kIgnoreHead = [](const HttpResult&) {};
const auto kIgnoreBody = [](std::span<const std::byte>) {};

TEST(Http, ASlowServerIsABrokenConnection) {
  const SlowServer drips("x"); // 20 bytes a second
  HttpClient client(origin_of(drips.url()), "", "");
  HttpResult result;
  const double seconds = seconds_of([&] {
    result = client.send(
        {.url = drips.url(),
         .if_match = {},
         .if_match_origin = {},
         .stall_timeout_s = 1,
         .on_wait = {}},
        1 << 20,
        kIgnoreHead,
        kIgnoreBody);
  });
  EXPECT_TRUE(result.broken);
  EXPECT_LT(seconds, 8);
}

TEST(Http, AWholeAnswerHasADeadline) {
  const SlowServer steady(std::string(4096, 'x')); // above the least speed
  HttpClient client(origin_of(steady.url()), "", "");
  HttpResult result;
  const double seconds = seconds_of([&] {
    result = client.send(
        {.url = steady.url(),
         .if_match = {},
         .if_match_origin = {},
         .total_timeout_s = 1,
         .on_wait = {}},
        1 << 20,
        kIgnoreHead,
        kIgnoreBody);
  });
  EXPECT_TRUE(result.broken);
  EXPECT_LT(seconds, 8);
}

TEST(Http, AWaitIsCancelledInLessThanASecond) {
  for (const char* piece : {"x", ""}) {
    const SlowServer slow(piece);
    HttpClient client(origin_of(slow.url()), "", "");
    const auto start = std::chrono::steady_clock::now();
    auto asked = start;
    test::expect_error(ErrorKind::Cancelled, {"enough"}, [&] {
      client.send(
          {.url = slow.url(),
           .if_match = {},
           .if_match_origin = {},
           .on_wait =
               [&] {
                 asked = std::chrono::steady_clock::now();
                 if (asked - start > std::chrono::milliseconds(300)) {
                   fail(ErrorKind::Cancelled, "enough");
                 }
               }},
          1 << 20,
          kIgnoreHead,
          kIgnoreBody);
    });
    EXPECT_LT(std::chrono::duration<double>(asked - start).count(), 1.2);
  }
}

TEST(Http, RefusesTokensThatWouldLeak) {
  const Origin plain = origin_of("http://a.example");
  test::expect_error(ErrorKind::Denied, {"a.example", "clear text"}, [&] {
    HttpClient(plain, "secret", "");
  });
  const HttpClient without_token(plain, "", "");
  test::expect_error(ErrorKind::Denied, {"127.evil.example"}, [&] {
    HttpClient(origin_of("http://127.evil.example"), "secret", "");
  });
  const HttpClient loopback(origin_of("http://127.0.0.1:1"), "secret", "");
  const HttpClient loopback_6(origin_of("http://[::1]:1"), "secret", "");
  for (const char* token : {"a b", "a\r\nX: y", "\xc3\xa9"}) {
    test::expect_error(ErrorKind::InvalidInput, {"token"}, [&] {
      HttpClient(origin_of("https://a.example"), token, "");
    });
  }
}

} // namespace
} // namespace optiq::io
