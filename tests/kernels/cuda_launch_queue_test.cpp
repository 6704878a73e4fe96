#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.h"

#include "optiq/kernels/cuda/launch_queue.h"

/** What runs on a stream of the test's own, and how it came there: kernels
 * write down their argument. */
namespace optiq::kernels::cuda {
namespace {

using test::expect_error;

constexpr Result kFailure = 700;

struct Ran {
  unsigned grid = 0;
  int argument = 0;
  bool operator==(const Ran&) const = default;
};

/** The driver's side. */
struct Pretended {
  std::vector<Ran> ran;
  std::unique_ptr<std::vector<Ran>> capture;
  int launches = 0; // one by one
  int graphs = 0; // launched
  int made = 0; // executable graphs
  int live = 0; // graphs of both kinds that nobody gave back
  bool can_update = true;
  int launches_left = -1; // until one fails
};

Pretended& pretended() {
  static Pretended state;
  return state;
}

Result launch(const LaunchConfig* config, Function, void** arguments, void**) {
  Pretended& p = pretended();
  if (p.launches_left == 0) {
    return kFailure;
  }
  --p.launches_left;
  const Ran one{config->grid_x, *static_cast<int*>(arguments[0])};
  if (p.capture) {
    p.capture->push_back(one);
  } else {
    ++p.launches;
    p.ran.push_back(one);
  }
  return 0;
}

std::vector<Ran>& kernels_of(void* graph) {
  return *static_cast<std::vector<Ran>*>(graph);
}

template <class Handle>
Result release(Handle graph) {
  if (graph != nullptr) {
    --pretended().live;
    delete &kernels_of(graph);
  }
  return 0;
}

Driver pretended_driver() {
  Driver d{};
  const auto say = [](Result, const char** text) {
    return *text = "it broke", 0;
  };
  d.error_name = say;
  d.error_text = say;
  d.launch = launch;
  d.begin_capture = [](Stream, int) {
    pretended().capture = std::make_unique<std::vector<Ran>>();
    return 0;
  };
  d.end_capture = [](Stream, Graph* graph) {
    ++pretended().live;
    *graph = reinterpret_cast<Graph>(pretended().capture.release());
    return 0;
  };
  d.instantiate = [](GraphExec* made, Graph graph, unsigned long long) {
    ++pretended().made;
    ++pretended().live;
    *made =
        reinterpret_cast<GraphExec>(new std::vector<Ran>(kernels_of(graph)));
    return 0;
  };
  d.update_graph = [](GraphExec executable, Graph graph, GraphUpdate*) {
    EXPECT_EQ(kernels_of(executable).size(), kernels_of(graph).size());
    if (!pretended().can_update) {
      return kFailure;
    }
    kernels_of(executable) = kernels_of(graph);
    return 0;
  };
  d.launch_graph = [](GraphExec graph, Stream) {
    ++pretended().graphs;
    for (const Ran& one : kernels_of(graph)) {
      pretended().ran.push_back(one);
    }
    return 0;
  };
  d.release_graph = release<Graph>;
  d.release_graph_exec = release<GraphExec>;
  return d;
}

class LaunchQueueTest : public ::testing::Test {
 protected:
  LaunchQueueTest() {
    pretended() = {};
  }
  /** Adds n kernels that nobody added before. */
  void add(int n) {
    for (int i = 0; i < n; ++i) {
      const auto grid = static_cast<unsigned>(next_ % 7 + 1);
      expected_.push_back({grid, next_});
      queue_->add({.kernel = "a kernel", .grid = {grid, 1, 1}}, &next_, 4);
      ++next_;
    }
  }
  /** A step: what is added, until the stream is idle. */
  void step(int n) {
    add(n);
    queue_->send();
    queue_->note_idle();
    EXPECT_EQ(pretended().ran, expected_);
  }

  Driver driver_ = pretended_driver();
  std::unique_ptr<LaunchQueue> queue_ =
      std::make_unique<LaunchQueue>(driver_, nullptr, true);
  std::vector<Ran> expected_;
  int next_ = 0;
};

TEST_F(LaunchQueueTest, RunsAllInOrderWithTheirOwnArguments) {
  for (const int n :
       {0, 1, 3, 4, 7, 8, 9, 23, 24, 130, 131, 130, 600, 8, 130}) {
    step(n);
  }
}

TEST_F(LaunchQueueTest, AFewGoOneByOne) {
  step(3);
  EXPECT_EQ(pretended().launches, 3);
  EXPECT_EQ(pretended().graphs, 0);
}

TEST_F(LaunchQueueTest, StepsAlikeUseTheirGraphsAgain) {
  step(130);
  const int made = pretended().made;
  EXPECT_GE(made, 3);
  EXPECT_LE(made, 10);
  step(130);
  step(130);
  EXPECT_EQ(pretended().made, made);
  EXPECT_EQ(pretended().graphs, 3 * made);
}

TEST_F(LaunchQueueTest, SendsLittleFirstAndMoreWhileTheCardIsBusy) {
  add(3);
  EXPECT_EQ(pretended().graphs, 0);
  add(1);
  EXPECT_EQ(pretended().ran, expected_);
  add(7);
  EXPECT_EQ(pretended().graphs, 1);
  add(1);
  EXPECT_EQ(pretended().ran, expected_);
}

TEST_F(LaunchQueueTest, MakesAGraphAnewThatCannotBeUpdated) {
  step(40);
  const int made = pretended().made;
  pretended().can_update = false;
  step(40);
  EXPECT_EQ(pretended().made, 2 * made);
}

TEST_F(LaunchQueueTest, ForgetsWhatFailed) {
  pretended().launches_left = 2;
  expect_error(
      ErrorKind::Internal, {"a kernel", "it broke", "700"}, [&] { add(4); });
  pretended().launches_left = -1;
  expected_.clear();
  step(20);
}

TEST_F(LaunchQueueTest, KeepsOnlySoMany) {
  for (int n = 0; n < 600; ++n) {
    step(n);
    EXPECT_LE(pretended().live, 256);
    pretended().ran.clear();
    expected_.clear();
  }
  EXPECT_GT(pretended().made, 256);
}

TEST_F(LaunchQueueTest, GivesGraphsBack) {
  step(130);
  step(50);
  queue_.reset();
  EXPECT_EQ(pretended().live, 0);
}

} // namespace
} // namespace optiq::kernels::cuda
