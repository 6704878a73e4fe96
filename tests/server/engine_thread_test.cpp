#include "optiq/server/engine_thread.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "support/served_script.h"

namespace optiq::server {
namespace {

/** Says when a request has ended. */
class Listener final : public generate::RequestListener {
 public:
  bool on_token(const generate::AnswerToken& token) override {
    tokens.push_back(token.id);
    return true;
  }
  void on_end(const generate::Ending& ending) override {
    ended.set_value(ending.reason);
  }

  std::vector<std::int32_t> tokens;
  std::promise<generate::FinishReason> ended;
};

generate::Request request(std::shared_ptr<Listener> listener) {
  return {
      .prompt = {'w'},
      .max_tokens = 3,
      .stop_ids = {testing::kEnd},
      .listener = std::move(listener)};
}

std::unique_ptr<EngineThread> make_thread(EngineThread::Hooks hooks = {}) {
  return std::make_unique<EngineThread>(
      testing::scripted_served().setup,
      generate::EngineOptions{.max_cache_bytes = 1u << 20},
      std::move(hooks));
}

/** Runs on the thread, and waits until it has. */
void run_on(EngineThread& thread, EngineCommand command) {
  std::promise<void> done;
  thread.post([&](generate::Engine& engine) {
    command(engine);
    done.set_value();
  });
  done.get_future().wait();
}

TEST(EngineThread, RunsWhatIsSubmittedAndSleepsAgain) {
  const auto thread = make_thread();
  for (int i = 0; i < 3; ++i) {
    const auto listener = std::make_shared<Listener>();
    auto ended = listener->ended.get_future();
    thread->post(
        [&](generate::Engine& engine) { engine.submit(request(listener)); });
    EXPECT_EQ(ended.get(), generate::FinishReason::Length);
    EXPECT_EQ(listener->tokens, (std::vector<std::int32_t>{'x', 'y', 'z'}));
  }
  run_on(*thread, [](generate::Engine&) {}); // behind the last step
  EXPECT_EQ(thread->status().running, 0);
  EXPECT_EQ(thread->status().answer_tokens, 9u);
}

TEST(EngineThread, RunsCommandsInOrderOnOneThread) {
  const auto thread = make_thread();
  std::vector<int> order;
  std::thread::id id;
  for (int i = 0; i < 100; ++i) {
    thread->post([&, i](generate::Engine&) {
      order.push_back(i);
      id = std::this_thread::get_id();
    });
  }
  run_on(*thread, [&](generate::Engine&) {
    EXPECT_EQ(id, std::this_thread::get_id());
  });
  EXPECT_NE(id, std::this_thread::get_id());
  ASSERT_EQ(order.size(), 100u);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST(EngineThread, TellsOfEveryStep) {
  std::promise<generate::EngineStatus> seen;
  bool is_set = false; // of the thread
  const auto thread =
      make_thread({.on_step = [&](const generate::EngineStatus& status) {
        if (!std::exchange(is_set, true)) {
          seen.set_value(status);
        }
      }});
  const auto listener = std::make_shared<Listener>();
  thread->post(
      [&](generate::Engine& engine) { engine.submit(request(listener)); });
  EXPECT_EQ(seen.get_future().get().last_step_rows, 1);
}

TEST(EngineThread, MakesTheEngineAnewAfterAFailure) {
  std::promise<std::string> failure;
  const auto thread =
      make_thread({.on_failure = [&](const std::exception_ptr& error) {
        try {
          std::rethrow_exception(error);
        } catch (const std::exception& failed) {
          failure.set_value(failed.what());
        }
      }});
  const auto lost = std::make_shared<Listener>();
  thread->post([&](generate::Engine& engine) {
    engine.submit(request(lost));
    throw std::runtime_error("a defect");
  });
  EXPECT_EQ(failure.get_future().get(), "a defect");
  const auto next = std::make_shared<Listener>();
  thread->post([&](generate::Engine& engine) { engine.submit(request(next)); });
  EXPECT_EQ(next->ended.get_future().get(), generate::FinishReason::Length);
  EXPECT_EQ(thread->restarts(), 1u);
  EXPECT_TRUE(lost->tokens.empty());
}

TEST(EngineThread, EndsWithWorkInIt) {
  auto thread = make_thread();
  const auto listener = std::make_shared<Listener>();
  run_on(*thread, [&](generate::Engine& engine) {
    auto endless = request(listener);
    endless.prompt = {testing::kForever};
    endless.max_tokens = 50'000;
    engine.submit(std::move(endless));
  });
  thread = nullptr; // does not wait for its end, and calls nobody
  EXPECT_NE(
      listener->ended.get_future().wait_for(std::chrono::seconds(0)),
      std::future_status::ready);
}

} // namespace
} // namespace optiq::server
