#include "optiq/server/http_server.h"

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "support/expect_error.h"
#include "support/raw_client.h"
#include "support/scratch_folder.h"

namespace optiq::server {
namespace {

using std::chrono::milliseconds;
using test::RawClient;
using test::RunningServer;
using test::status_of;

const std::string kGet = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const std::string kBye =
    "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

std::string post(const std::string& path, const std::string& body) {
  return "POST " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body;
}

/** Says what it was asked. */
void echo(const HttpRequest& request, const std::shared_ptr<HttpReply>& reply) {
  reply->respond(
      {.content_type = "text/plain",
       .body = request.method + " " + request.path + " " + request.body});
}

/** Holds on to replies, so that the test answers when it likes. */
class Held {
 public:
  HttpHandler handler() {
    return [this](const HttpRequest&, std::shared_ptr<HttpReply> reply) {
      const std::lock_guard lock(mutex_);
      replies_.push_back(std::move(reply));
      arrived_.notify_all();
    };
  }
  std::shared_ptr<HttpReply> take() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(arrived_.wait_for(
        lock, std::chrono::seconds(10), [&] { return !replies_.empty(); }));
    auto reply = replies_.front();
    replies_.erase(replies_.begin());
    return reply;
  }

 private:
  std::mutex mutex_; // guards replies_
  std::condition_variable arrived_;
  std::vector<std::shared_ptr<HttpReply>> replies_;
};

/** Becomes true within ten seconds. */
template <typename Condition>
bool soon(Condition condition) {
  for (int i = 0; i < 2000 && !condition(); ++i) {
    std::this_thread::sleep_for(milliseconds(5));
  }
  return condition();
}

class HttpServerTest : public ::testing::Test {
 private:
  std::mutex mutex_; // guards log_
  std::vector<HttpAccess> log_;

 protected:
  RunningServer& serve(HttpHandler handler, HttpServerOptions options = {}) {
    server_.emplace(std::move(options), std::move(handler));
    server_->http().set_access_log([this](const HttpAccess& access) {
      const std::lock_guard lock(mutex_);
      log_.push_back(access);
    });
    server_->start();
    return *server_;
  }
  std::vector<HttpAccess> log() {
    const std::lock_guard lock(mutex_);
    return log_;
  }

  Held held_; // it and the log outlive the server
  std::optional<RunningServer> server_;
};

TEST_F(HttpServerTest, AnswersAndKeepsTheConnection) {
  RawClient client(serve(echo).port());
  client.send(kGet);
  const std::string first = client.read_response();
  EXPECT_EQ(status_of(first), 200);
  EXPECT_TRUE(first.ends_with("\r\n\r\nGET / ")) << first;
  EXPECT_NE(first.find("content-type: text/plain\r\n"), std::string::npos);
  EXPECT_NE(first.find("\r\ndate: "), std::string::npos);
  EXPECT_NE(first.find("\r\nx-request-id: "), std::string::npos);
  client.send(post("/a%20b", "body"));
  EXPECT_TRUE(client.read_response().ends_with("POST /a b body"));
  client.send(kBye);
  const std::string last = client.read_all();
  EXPECT_NE(last.find("connection: close"), std::string::npos);
  ASSERT_EQ(log().size(), 3u);
  EXPECT_EQ(log()[1].target, "/a%20b");
  EXPECT_EQ(log()[2].status, 200);
  EXPECT_FALSE(log()[2].gone);
  EXPECT_EQ(log()[2].bytes_sent, last.size());
  EXPECT_NE(log()[0].id, log()[1].id);
}

TEST_F(HttpServerTest, AnswersHttp10AndHead) {
  const int port = serve(echo).port();
  RawClient old(port);
  old.send("GET / HTTP/1.0\r\n\r\n");
  EXPECT_EQ(status_of(old.read_all()), 200);
  RawClient kept(port);
  kept.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_NE(
      kept.read_response().find("connection: keep-alive"), std::string::npos);
  kept.send("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  const std::string head = kept.read_all();
  EXPECT_NE(head.find("content-length: 6\r\n"), std::string::npos) << head;
  EXPECT_TRUE(head.ends_with("\r\n\r\n")) << head;
}

TEST_F(HttpServerTest, AnswersPipelinedRequestsInOrder) {
  RawClient client(serve(held_.handler()).port());
  client.send(post("/1", "a") + kGet + kBye);
  for (const char* body : {"one", "two", "three"}) {
    held_.take()->respond({.body = body});
  }
  const std::string all = client.read_all();
  EXPECT_LT(all.find("one"), all.find("two"));
  EXPECT_LT(all.find("two"), all.find("three"));
  EXPECT_NE(all.find("three"), std::string::npos);
}

TEST_F(HttpServerTest, AnswersWhatIsPipelinedBeforeAHalfClose) {
  RawClient client(serve(echo).port());
  client.send(post("/1", "a") + post("/2", "b"));
  client.finish_sending();
  const std::string all = client.read_all();
  EXPECT_NE(all.find("POST /1 a"), std::string::npos) << all;
  EXPECT_NE(all.find("POST /2 b"), std::string::npos) << all;
}

TEST_F(HttpServerTest, ReadsChunkedBodiesHoweverTheyArrive) {
  RawClient client(serve(echo).port());
  for (const char c : std::string(
           "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
           "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")) {
    client.send(std::string_view(&c, 1));
  }
  EXPECT_TRUE(client.read_response().ends_with("POST /c abcde"));
}

TEST_F(HttpServerTest, SaysContinueToWhoWaitsForIt) {
  RawClient client(serve(echo, {.max_body_bytes = 10}).port());
  client.send(
      "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
      "Content-Length: 3\r\n\r\n");
  EXPECT_EQ(status_of(client.read_until("\r\n\r\n")), 100);
  client.send("abc");
  EXPECT_TRUE(client.read_response().ends_with("POST / abc"));
  client.send(
      "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
      "Content-Length: 11\r\n\r\n");
  EXPECT_EQ(status_of(client.read_all()), 413);
}

TEST_F(HttpServerTest, AnswersWhatIsNoHttpAndCloses) {
  const int port = serve(echo).port();
  RawClient client(port);
  client.send("nonsense\r\n\r\n" + kGet);
  const std::string all = client.read_all();
  EXPECT_EQ(status_of(all), 400);
  EXPECT_NE(all.find("\"error\""), std::string::npos);
  EXPECT_EQ(all.find("HTTP/1.1 200"), std::string::npos); // nothing behind it
  RawClient other(port);
  other.send(kBye);
  EXPECT_EQ(status_of(other.read_all()), 200);
}

TEST_F(HttpServerTest, RefusesLargeBodiesWithoutLosingTheAnswer) {
  RawClient client(serve(echo, {.max_body_bytes = 1000}).port());
  client.send(post("/", std::string(300'000, 'x')));
  EXPECT_EQ(status_of(client.read_all()), 413);
}

TEST_F(HttpServerTest, AsksTheGateBeforeTheBody) {
  server_.emplace(HttpServerOptions{}, echo);
  server_->http().set_gate(
      [](const HttpRequest& request) -> std::optional<HttpResponse> {
        if (request.header("x-api-key") == "key") {
          return std::nullopt;
        }
        return HttpResponse{.status = 401};
      });
  server_->start();
  RawClient client(server_->port());
  client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n");
  EXPECT_EQ(status_of(client.read_all()), 401);
  RawClient known(server_->port());
  known.send(
      "POST / HTTP/1.1\r\nHost: a\r\nx-api-key: key\r\n"
      "Content-Length: 1\r\n\r\na");
  EXPECT_EQ(status_of(known.read_response()), 200);
}

TEST_F(HttpServerTest, StreamsEventsInChunks) {
  RawClient client(serve(held_.handler()).port());
  client.send(kGet + kBye);
  const auto reply = held_.take();
  reply->begin_stream({{"x-thing", "v"}});
  const std::string header = client.read_until("\r\n\r\n");
  EXPECT_NE(header.find("content-type: text/event-stream"), std::string::npos);
  EXPECT_NE(header.find("transfer-encoding: chunked"), std::string::npos);
  EXPECT_NE(header.find("x-thing: v"), std::string::npos);
  EXPECT_TRUE(reply->write("data: 1\n\n"));
  EXPECT_EQ(client.read_until("\n\n\r\n"), "9\r\ndata: 1\n\n\r\n");
  EXPECT_TRUE(reply->write("data: 2\n\n"));
  reply->end_stream();
  EXPECT_TRUE(client.read_until("0\r\n\r\n").ends_with("0\r\n\r\n"));
  held_.take()->respond({.body = "next"});
  EXPECT_TRUE(client.read_all().ends_with("next"));
  EXPECT_FALSE(reply->write("data: 3\n\n"));
}

TEST_F(HttpServerTest, StreamsToHttp10UntilTheEnd) {
  RawClient client(serve(held_.handler()).port());
  client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const auto reply = held_.take();
  reply->begin_stream();
  reply->write("data: 1\n\n");
  reply->end_stream();
  const std::string all = client.read_all();
  EXPECT_TRUE(all.ends_with("\r\n\r\ndata: 1\n\n")) << all;
  EXPECT_EQ(all.find("chunked"), std::string::npos);
}

TEST_F(HttpServerTest, SendsCommentsWhenAStreamIsQuiet) {
  RawClient client(
      serve(held_.handler(), {.comment_interval = milliseconds(30)}).port());
  client.send(kGet);
  const auto reply = held_.take();
  reply->begin_stream();
  client.read_until("\r\n\r\n");
  EXPECT_EQ(client.read_until("\n\n\r\n"), "e\r\n: keep-alive\n\n\r\n");
  reply->write("data: 1\n\n");
  reply->end_stream();
  EXPECT_NE(client.read_until("0\r\n\r\n").find("data: 1"), std::string::npos);
}

TEST_F(HttpServerTest, NoticesAPeerThatGoesWhileItWaits) {
  RawClient client(serve(held_.handler()).port());
  client.send(kGet);
  const auto reply = held_.take();
  std::atomic<int> gone = 0;
  reply->on_gone([&] { ++gone; });
  client.close();
  EXPECT_TRUE(soon([&] { return gone == 1; }));
  EXPECT_TRUE(soon([&] { return log().size() == 1; }));
  EXPECT_TRUE(log()[0].gone);
  reply->respond({.body = "late"});
  EXPECT_EQ(gone, 1);
}

TEST_F(HttpServerTest, NoticesAPeerThatGoesDuringAStream) {
  RawClient client(serve(held_.handler()).port());
  client.send(kGet);
  const auto reply = held_.take();
  reply->begin_stream();
  reply->write("data: 1\n\n");
  client.read_until("data: 1");
  client.close();
  EXPECT_TRUE(soon([&] { return !reply->write("data: 2\n\n"); }));
  std::atomic<bool> told = false;
  reply->on_gone([&] { told = true; });
  EXPECT_TRUE(soon([&] { return told.load(); }));
}

TEST_F(HttpServerTest, TellsNobodyOfAPeerThatGoesAfterTheEnd) {
  RawClient client(serve(held_.handler()).port());
  client.send(kGet);
  std::atomic<int> gone = 0;
  const auto reply = held_.take();
  reply->on_gone([&] { ++gone; });
  reply->respond({.body = "all"});
  client.read_response();
  client.close();
  RawClient next(server_->port()); // the loop has seen the first go
  next.send(kGet);
  held_.take()->respond({});
  next.read_response();
  EXPECT_EQ(gone, 0);
}

TEST_F(HttpServerTest, CutsAReaderThatIsTooSlow) {
  RawClient client(
      serve(held_.handler(), {.max_unsent_bytes = 100'000}).port());
  client.send(kGet);
  const auto reply = held_.take();
  std::atomic<int> gone = 0;
  reply->on_gone([&] { ++gone; });
  reply->begin_stream();
  const std::string event = "data: " + std::string(9'992, 'x') + "\n\n";
  std::size_t taken = 0; // until the buffers of the kernel are full
  while (reply->write(event)) {
    taken += event.size();
    ASSERT_LT(taken, 1'000'000'000u);
  }
  EXPECT_TRUE(soon([&] { return gone == 1; }));
  // What came through ends in a cut, not in the chunk that ends a stream.
  EXPECT_FALSE(client.read_all().ends_with("0\r\n\r\n"));
}

TEST_F(HttpServerTest, CutsAPeerThatTakesNothingOfAResponse) {
  RawClient client(
      serve(held_.handler(), {.write_timeout = milliseconds(100)}).port());
  client.send(kGet);
  std::string body;
  body.resize(50'000'000, 'x');
  held_.take()->respond({.body = std::move(body)});
  EXPECT_TRUE(soon([&] { return log().size() == 1; }));
  EXPECT_TRUE(log()[0].gone);
}

TEST_F(HttpServerTest, AnswersForAHandlerThatDoesNot) {
  const int port = serve(held_.handler()).port();
  RawClient client(port);
  client.send(kGet);
  held_.take(); // and forgets it
  EXPECT_EQ(status_of(client.read_response()), 500);
  client.send(kGet);
  held_.take()->begin_stream();
  const std::string cut = client.read_all();
  EXPECT_EQ(status_of(cut), 200);
  EXPECT_FALSE(cut.ends_with("0\r\n\r\n"));
}

TEST_F(HttpServerTest, AnswersForAHandlerThatThrows) {
  RawClient client(
      serve([](const HttpRequest&, const std::shared_ptr<HttpReply>&) {
        throw std::runtime_error("broken");
      }).port());
  client.send(kGet);
  EXPECT_EQ(status_of(client.read_response()), 500);
}

TEST_F(HttpServerTest, TimesOutSlowRequests) {
  const int port = serve(
                       echo,
                       {.header_timeout = milliseconds(100),
                        .body_timeout = milliseconds(100),
                        .idle_timeout = milliseconds(100)})
                       .port();
  RawClient header(port);
  header.send("GET / HTTP/1.1\r\nHo");
  EXPECT_EQ(status_of(header.read_all()), 408);
  RawClient body(port);
  body.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc");
  EXPECT_EQ(status_of(body.read_all()), 408);
  RawClient silent(port);
  EXPECT_EQ(silent.read_all(), "");
  RawClient idle(port);
  idle.send(kGet);
  EXPECT_EQ(status_of(idle.read_response()), 200);
  EXPECT_EQ(idle.read_all(), "");
}

TEST_F(HttpServerTest, RefusesOneConnectionTooMany) {
  const int port = serve(echo, {.max_connections = 2}).port();
  RawClient first(port);
  std::optional<RawClient> second(port);
  first.send(kGet);
  EXPECT_EQ(status_of(first.read_response()), 200);
  second->send(kGet);
  EXPECT_EQ(status_of(second->read_response()), 200);
  EXPECT_EQ(status_of(RawClient(port).read_all()), 503);
  second.reset();
  EXPECT_TRUE(soon([&] {
    RawClient again(port);
    again.send(kBye);
    return status_of(again.read_all()) == 200;
  }));
}

TEST_F(HttpServerTest, LetsAnswersEndWhenItStops) {
  RunningServer& server = serve(held_.handler());
  RawClient client(server.port());
  RawClient idle(server.port());
  client.send(kGet);
  const auto reply = held_.take();
  std::thread stopping([&] { server.stop(std::chrono::seconds(10)); });
  EXPECT_EQ(idle.read_all(), ""); // it stops now
  EXPECT_ANY_THROW(RawClient(server.port()));
  reply->respond({.body = "all of it"});
  const std::string answer = client.read_all();
  EXPECT_TRUE(answer.ends_with("all of it"));
  EXPECT_NE(answer.find("connection: close"), std::string::npos);
  stopping.join();
}

TEST_F(HttpServerTest, CutsAnswersThatOutliveTheGrace) {
  RunningServer& server = serve(held_.handler());
  RawClient client(server.port());
  client.send(kGet);
  const auto reply = held_.take();
  bool gone = false;
  reply->on_gone([&] { gone = true; });
  server.stop(milliseconds(50));
  EXPECT_TRUE(gone);
  EXPECT_EQ(client.read_all(), "");
  reply->respond({.body = "late"}); // nobody is there: nothing happens
  bool told = false;
  server.http().post([&] { told = true; });
  EXPECT_TRUE(told);
}

TEST_F(HttpServerTest, StopsBeforeItRan) {
  RunningServer server({}, echo);
  server.http().stop(milliseconds(0));
  server.start();
  server.stop(milliseconds(0));
}

TEST_F(HttpServerTest, NamesABusyPort) {
  const int port = serve(echo).port();
  test::expect_error(
      ErrorKind::InvalidInput,
      {"[HttpServer] 127.0.0.1:" + std::to_string(port), "--port"},
      [&] { HttpServer({.port = port}, echo); });
  test::expect_error(ErrorKind::InvalidInput, {"no.such.host.invalid"}, [] {
    HttpServer({.host = "no.such.host.invalid", .port = 0}, echo);
  });
}

TEST_F(HttpServerTest, ServesAUnixSocketForThisUserAlone) {
  const test::ScratchFolder folder;
  const std::string path = folder.path() / "socket";
  {
    RunningServer& server = serve(echo, {.unix_socket = path});
    EXPECT_EQ(server.port(), 0);
    struct stat status {};
    ASSERT_EQ(stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0600u);
    RawClient client(path);
    client.send(kBye);
    EXPECT_EQ(status_of(client.read_all()), 200);
    EXPECT_TRUE(soon([&] { return log().size() == 1; }));
    EXPECT_EQ(log()[0].peer, "unix");
    test::expect_error(ErrorKind::InvalidInput, {path, "already"}, [&] {
      HttpServer({.unix_socket = path}, echo);
    });
    EXPECT_TRUE(std::filesystem::exists(path));
    server_.reset();
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(HttpServerTest, ReplacesAStaleSocketAndNothingElse) {
  const test::ScratchFolder folder;
  const std::string path = folder.path() / "socket";
  const int stale = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(
      bind(stale, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  close(stale);
  {
    RunningServer& server = serve(echo, {.unix_socket = path});
    RawClient client(path);
    client.send(kBye);
    EXPECT_EQ(status_of(client.read_all()), 200);
    server.stop(milliseconds(0));
    server_.reset();
  }
  const std::string file = folder.path() / "file";
  std::ofstream(file) << "text";
  test::expect_error(ErrorKind::InvalidInput, {file, "no socket"}, [&] {
    HttpServer({.unix_socket = file}, echo);
  });
  EXPECT_TRUE(std::filesystem::exists(file));
  test::expect_error(ErrorKind::InvalidInput, {"at most"}, [&] {
    HttpServer({.unix_socket = folder.path() / std::string(200, 'x')}, echo);
  });
}

} // namespace
} // namespace optiq::server
