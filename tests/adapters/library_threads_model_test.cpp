#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "support/small_adapter.h"
#include "support/tiny_model.h"

#include "optiq/adapters/adapter_set.h"
#include "optiq/base/thread_pool.h"
#include "optiq/generate/generator.h"

namespace optiq::adapters {
namespace {

using Tokens = std::vector<std::int32_t>;

/** Threads of a program that share a model and a set of adapters. */
class LibraryThreadsTest : public ::testing::Test {
 protected:
  LibraryThreadsTest() {
    ThreadPool::shared().resize(2); // whatever the machine has
    mount_adapter(set_, "a", write("a", 1));
    mount_adapter(set_, "b", write("b", 100));
  }
  ~LibraryThreadsTest() override {
    ThreadPool::shared().resize(size_);
  }

  std::filesystem::path write(const std::string& name, unsigned seed) {
    return testing::write_random_adapter(
        scratch_ / name, *model_, {"q_proj", "mlp.up_proj"}, 4, seed);
  }

  Tokens generate(generate::Engine& engine) const {
    return generate::generate(
               engine,
               tokens_,
               {.max_tokens = 12, .sampler = {.temperature = 1.5f}})
        .tokens;
  }
  /** In an engine of its own, by what the thread has activated. */
  Tokens generate() const {
    generate::Engine engine({model_, kernels::Compute::Fast}, {});
    return generate(engine);
  }
  Tokens generate_with(const std::string& selection) {
    const AdapterActivation active(set_, selection);
    return generate();
  }

  const int size_ = ThreadPool::shared().size();
  test::ScratchFolder scratch_;
  std::shared_ptr<const models::Model> model_ = testing::load_tiny_model();
  Tokens tokens_ = testing::arithmetic_tokens(20);
  AdapterSet set_{model_};
};

TEST_F(LibraryThreadsTest, EachHasTheAnswersOfItsActivationAlone) {
  const std::vector<std::string> selections{"base", "a", "b", "a*0.5+b"};
  std::vector<Tokens> expected;
  for (const std::string& selection : selections) {
    expected.push_back(generate_with(selection));
  }
  for (std::size_t i = 1; i < expected.size(); ++i) {
    ASSERT_NE(expected[i], expected[i - 1]);
  }
  const auto work = [&](std::size_t first) {
    for (std::size_t i = 0; i < selections.size(); ++i) {
      const std::size_t which = (first + i) % selections.size();
      EXPECT_EQ(generate_with(selections[which]), expected[which])
          << selections[which] << ", round " << i;
    }
  };
  std::thread other(work, 1);
  work(0);
  other.join();
}

TEST_F(LibraryThreadsTest, EnginesRunAtOnce) {
  const AdapterActivation active(set_, "a");
  const Tokens expected_here = generate();
  Tokens expected_there;
  std::thread([&] { expected_there = generate(); }).join(); // without adapter
  ASSERT_NE(expected_here, expected_there);
  const auto work = [&](const Tokens& expected) {
    generate::Engine engine({model_, kernels::Compute::Fast}, {});
    for (int i = 0; i < 4; ++i) { // kept prefixes serve all but the first
      EXPECT_EQ(generate(engine), expected) << "round " << i;
    }
  };
  std::thread other([&] { work(expected_there); });
  work(expected_here);
  other.join();
}

TEST_F(LibraryThreadsTest, AdaptersComeAndGoMeanwhile) {
  const Tokens expected = generate_with("a");
  write("c", 200);
  std::thread other([&] {
    for (int i = 0; i < 10; ++i) {
      mount_adapter(set_, "c", scratch_ / "c");
      EXPECT_EQ(list_adapters(set_).size(), 3U);
      unmount_adapter(set_, "c");
    }
  });
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(generate_with("a"), expected) << "round " << i;
  }
  other.join();
}

} // namespace
} // namespace optiq::adapters
