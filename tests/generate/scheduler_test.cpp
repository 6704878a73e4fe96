#include "optiq/generate/scheduler.h"

#include <algorithm>
#include <map>
#include <random>

#include <gtest/gtest.h>

namespace optiq::generate {
namespace {

constexpr std::size_t kBlockBytes = 1000;
constexpr std::size_t kPlenty = 1'000'000;
const StepLimits kLimits{.prompt_rows = 512, .prompt_rows_beside_answers = 128};

RequestId id(std::uint64_t n) {
  return RequestId{n};
}

RunningView answering(std::uint64_t n, int length) {
  return {
      .id = id(n),
      .length = length,
      .rows_left = 1,
      .most_rows = 1,
      .block_bytes = kBlockBytes,
      .bytes_left = length % 64 == 0 ? kBlockBytes : 0};
}

RunningView prompt(std::uint64_t n, int rows_left, int length = 0) {
  const auto before = static_cast<std::size_t>(length);
  const auto blocks =
      cache::blocks_for(before + rows_left) - cache::blocks_for(before);
  return {
      .id = id(n),
      .length = length,
      .rows_left = rows_left,
      .most_rows = rows_left,
      .block_bytes = kBlockBytes,
      .bytes_left = blocks * kBlockBytes};
}

WaitingView waiting(std::uint64_t n, std::size_t bytes) {
  return {.id = id(n), .bytes = bytes, .block_bytes = kBlockBytes};
}

std::map<std::uint64_t, int> rows_of(const StepPlan& plan) {
  EXPECT_FALSE(plan.preempt.has_value());
  EXPECT_FALSE(plan.admit.has_value());
  std::map<std::uint64_t, int> rows;
  for (const RowShare& share : plan.rows) {
    rows[static_cast<std::uint64_t>(share.id)] = share.rows;
  }
  return rows;
}

using Rows = std::map<std::uint64_t, int>;
using Running = std::vector<RunningView>;

TEST(PlanStep, AnswersGoOnBesideAPromptThatIsCutShort) {
  const Running running{answering(1, 70), prompt(2, 2000), answering(3, 5)};
  EXPECT_EQ(
      rows_of(plan_step(running, {}, kPlenty, kLimits)),
      (Rows{{1, 1}, {2, 128}, {3, 1}}));
}

TEST(PlanStep, APromptAloneHasTheWholeBudget) {
  EXPECT_EQ(
      rows_of(plan_step(Running{prompt(1, 2000)}, {}, kPlenty, kLimits)),
      (Rows{{1, 512}}));
  EXPECT_EQ(
      rows_of(plan_step(Running{prompt(1, 300)}, {}, kPlenty, kLimits)),
      (Rows{{1, 300}}));
}

TEST(PlanStep, ShortPromptsComeFirstAndTheOldestAdvances) {
  const Running running{
      answering(1, 10), prompt(2, 2000), prompt(3, 40), prompt(4, 30)};
  const auto rows = rows_of(plan_step(running, {}, kPlenty, kLimits));
  EXPECT_EQ(rows.at(3), 40);
  EXPECT_EQ(rows.at(4), 30);
  EXPECT_EQ(rows.at(2), 128 - 40 - 30);
  // Shorter ones that could take it all leave it a quarter.
  const Running crowd{prompt(1, 2000), prompt(2, 1000), prompt(3, 900)};
  const auto shares = rows_of(plan_step(crowd, {}, kPlenty, kLimits));
  EXPECT_GE(shares.at(1), 512 / 4);
  EXPECT_EQ(shares.at(2), 1);
  EXPECT_EQ(shares.at(1) + shares.at(2) + shares.at(3), 512);
}

TEST(PlanStep, EveryPromptAdvancesWhereThereAreMoreThanRows) {
  Running running;
  for (std::uint64_t n = 1; n <= 9; ++n) {
    running.push_back(prompt(n, 50));
  }
  const auto rows = rows_of(plan_step(
      running,
      {},
      kPlenty,
      {.prompt_rows = 4, .prompt_rows_beside_answers = 1}));
  EXPECT_EQ(rows.size(), 9u);
}

TEST(PlanStep, PausesAtABorder) {
  RunningView view = prompt(1, 300);
  view.most_rows = 192;
  EXPECT_EQ(
      rows_of(plan_step(Running{view}, {}, kPlenty, kLimits)),
      (Rows{{1, 192}}));
}

TEST(PlanStep, PromptsTakeTheRowsThatFindMemory) {
  // 60 tokens are there: 4 more fill the block, two blocks follow.
  EXPECT_EQ(
      rows_of(
          plan_step(Running{prompt(1, 300, 60)}, {}, 2 * kBlockBytes, kLimits)),
      (Rows{{1, 4 + 128}}));
}

TEST(PlanStep, TheYoungestMakesRoomForOlderAnswers) {
  const Running running{answering(1, 64), answering(2, 64), answering(3, 64)};
  EXPECT_EQ(plan_step(running, {}, 0, kLimits).preempt, id(3));
  EXPECT_EQ(plan_step(running, {}, kBlockBytes, kLimits).preempt, id(3));
  // It is the youngest itself that lacks memory: it stands still.
  EXPECT_EQ(
      rows_of(plan_step(running, {}, 2 * kBlockBytes, kLimits)),
      (Rows{{1, 1}, {2, 1}}));
  const Running inside{answering(1, 64), answering(2, 65)};
  EXPECT_EQ(
      rows_of(plan_step(inside, {}, kBlockBytes, kLimits)),
      (Rows{{1, 1}, {2, 1}}));
}

TEST(PlanStep, AdmitsWhoseWholePromptFits) {
  const std::vector<WaitingView> queue{waiting(5, 3 * kBlockBytes)};
  EXPECT_EQ(plan_step({}, queue, 3 * kBlockBytes, kLimits).admit, id(5));
  // A prompt that runs needs 2 blocks more, and each a block of answer.
  const Running running{prompt(1, 128), answering(2, 10)};
  const auto admits = [&](std::size_t blocks) {
    return plan_step(running, queue, blocks * kBlockBytes, kLimits).admit;
  };
  EXPECT_EQ(admits(2 + 1 + 3), std::nullopt);
  EXPECT_EQ(admits(2 + 1 + 3 + 1), id(5));
}

TEST(PlanStep, NobodyOvertakesWhoWaitsForMemory) {
  const std::vector<WaitingView> queue{
      waiting(5, 9 * kBlockBytes), waiting(6, kBlockBytes)};
  const Running running{answering(1, 10)};
  EXPECT_EQ(
      rows_of(plan_step(running, queue, 5 * kBlockBytes, kLimits)),
      (Rows{{1, 1}}));
}

TEST(PlanStep, PassesOverWhoWaitsForAPrefix) {
  std::vector<WaitingView> queue{
      waiting(5, kBlockBytes), waiting(6, kBlockBytes)};
  queue.front().waits_for_prefix = true;
  const Running running{prompt(1, 500)};
  EXPECT_EQ(plan_step(running, queue, kPlenty, kLimits).admit, id(6));
  queue.pop_back();
  EXPECT_EQ(
      rows_of(plan_step(running, queue, kPlenty, kLimits)), (Rows{{1, 500}}));
}

/** A pool and requests that only count. */
class Simulation {
 public:
  Simulation(unsigned seed, int max_running)
      : random_(seed), max_running_(static_cast<std::size_t>(max_running)) {}

  void run(int n_requests) {
    int arrived = 0;
    for (int step = 0; arrived < n_requests || !all_ended(); ++step) {
      ASSERT_LT(step, 40'000) << "no end";
      if (arrived < n_requests && random_() % 4 == 0) {
        arrive(static_cast<std::uint64_t>(++arrived));
      }
      one_step();
      if (::testing::Test::HasFatalFailure()) {
        return;
      }
    }
  }

  int preemptions() const {
    return preemptions_;
  }

 private:
  struct Task {
    std::uint64_t id = 0;
    int prompt = 0;
    int answer = 0; // tokens it is to have
    int known = 0; // tokens of prompt and answer so far
    int length = 0; // of them in its sequence

    std::size_t held() const {
      return kFixed + cache::blocks_for(length) * kBlockBytes;
    }
    std::size_t bytes() const {
      return kFixed + cache::blocks_for(known) * kBlockBytes;
    }
  };

  static constexpr std::size_t kFixed = 300; // states
  static constexpr std::size_t kPool = 20 * kBlockBytes;

  bool all_ended() const {
    return running_.empty() && waiting_.empty();
  }

  void arrive(std::uint64_t n) {
    Task task{.id = n};
    // Alone all fit; some only just.
    const int longest = 19 * 64;
    task.prompt = 1 + static_cast<int>(random_() % (random_() % 6 ? 100 : 900));
    task.answer = 1 + static_cast<int>(random_() % (random_() % 3 ? 316 : 20));
    ASSERT_LE(task.prompt + task.answer, longest + 1);
    task.known = task.prompt;
    waiting_.emplace(n, task);
  }

  std::size_t used() const {
    std::size_t bytes = 0;
    for (const auto& [n, task] : running_) {
      bytes += task.held();
    }
    return bytes;
  }

  StepPlan plan() const {
    std::vector<RunningView> running;
    for (const auto& [n, task] : running_) {
      const int left = task.known - task.length;
      running.push_back(
          {.id = id(n),
           .length = task.length,
           .rows_left = left,
           .most_rows = left,
           .block_bytes = kBlockBytes,
           .bytes_left = task.bytes() - task.held()});
    }
    std::vector<WaitingView> waiting;
    for (const auto& [n, task] : waiting_) {
      if (waiting.size() + running.size() < max_running_) {
        waiting.push_back(
            {.id = id(n), .bytes = task.bytes(), .block_bytes = kBlockBytes});
      }
    }
    return plan_step(running, waiting, kPool - used(), kLimits);
  }

  void one_step() {
    StepPlan now = plan();
    for (int changes = 0; now.preempt || now.admit; now = plan()) {
      ASSERT_LT(++changes, 100) << "admits and preempts in turns";
      if (now.preempt) {
        ++preemptions_;
        auto moved = running_.extract(static_cast<std::uint64_t>(*now.preempt));
        moved.mapped().length = 0;
        ASSERT_TRUE(waiting_.insert(std::move(moved)).inserted);
      } else {
        auto moved = waiting_.extract(static_cast<std::uint64_t>(*now.admit));
        ASSERT_TRUE(running_.insert(std::move(moved)).inserted);
      }
      ASSERT_LE(used(), kPool);
    }
    advance(rows_of(now));
  }

  void advance(const Rows& rows) {
    if (running_.empty()) {
      ASSERT_TRUE(waiting_.empty()) << "nobody is let in";
      return;
    }
    // Whoever came first goes on, in every step.
    const std::uint64_t oldest = std::min(
        running_.begin()->first,
        waiting_.empty() ? running_.begin()->first : waiting_.begin()->first);
    ASSERT_TRUE(rows.contains(oldest));
    for (const auto& [n, n_rows] : rows) {
      Task& task = running_.at(n);
      task.length += n_rows;
      ASSERT_LE(task.length, task.known);
      if (task.length == task.known &&
          ++task.known == task.prompt + task.answer) {
        running_.erase(n);
      }
    }
    ASSERT_LE(used(), kPool);
  }

  std::mt19937 random_;
  std::size_t max_running_;
  std::map<std::uint64_t, Task> running_;
  std::map<std::uint64_t, Task> waiting_;
  int preemptions_ = 0;
};

TEST(PlanStep, EveryRequestEndsWhateverArrives) {
  int preemptions = 0;
  for (unsigned seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    Simulation simulation(seed, 1 + static_cast<int>(seed % 12));
    simulation.run(40);
    ASSERT_FALSE(HasFatalFailure());
    preemptions += simulation.preemptions();
  }
  EXPECT_GT(preemptions, 100); // the pool was too small as a rule
}

} // namespace
} // namespace optiq::generate
