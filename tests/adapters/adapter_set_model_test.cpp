#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <mlx/ops.h>

#include "support/expect_error.h"
#include "support/small_adapter.h"
#include "support/tiny_model.h"

#include "optiq/adapters/adapter_set.h"
#include "optiq/generate/generator.h"
#include "optiq/models/forward.h"

namespace optiq::adapters {
namespace {

using kernels::Compute;
using testing::same_bits;

class AdapterSetTest : public ::testing::Test {
 protected:
  std::filesystem::path
  write(const std::string& name, unsigned seed, int rank = 4) {
    return testing::write_random_adapter(
        scratch_ / name, *model_, {"q_proj", "mlp.up_proj"}, rank, seed);
  }

  /** Logits of the last of some tokens. */
  mx::array logits(std::shared_ptr<const nn::Adapter> adapter) const {
    models::Setup setup(model_, Compute::Fast);
    setup.adapter = std::move(adapter);
    const auto pool = std::make_shared<cache::BlockPool>(1 << 26);
    cache::Sequence sequence(pool, setup.layout);
    const std::vector<int> wanted{19};
    return io::materialize(
        models::Forward(setup).add(sequence, tokens_, wanted).run());
  }

  bool are_equal(
      const std::shared_ptr<const nn::Adapter>& one,
      const std::shared_ptr<const nn::Adapter>& other) const {
    return same_bits(io::floats(logits(one)), io::floats(logits(other)));
  }

  test::ScratchFolder scratch_;
  std::shared_ptr<const models::Model> model_ = testing::load_tiny_model();
  std::vector<std::int32_t> tokens_ = testing::arithmetic_tokens(20);
};

TEST_F(AdapterSetTest, MountsListsAndUnmounts) {
  AdapterSet set(model_);
  mount_adapter(set, "team/math-2", write("one", 1));
  mount_adapter(set, "b", write("two", 100, 2));
  const auto list = list_adapters(set);
  ASSERT_EQ(list.size(), 2U);
  EXPECT_EQ(list[0].id, "b");
  EXPECT_EQ(list[0].largest_rank, 2);
  EXPECT_EQ(list[1].id, "team/math-2");
  EXPECT_EQ(list[1].least_rank, 1);
  EXPECT_EQ(list[1].largest_rank, 4);
  // bfloat16, and nothing but the parameters.
  EXPECT_EQ(list[1].resident_bytes, 2 * list[1].parameters);
  EXPECT_EQ(set.find(""), nullptr);
  EXPECT_EQ(set.find("base"), nullptr);
  const auto kept = set.find("b");
  unmount_adapter(set, "b");
  EXPECT_EQ(list_adapters(set).size(), 1U);
  test::expect_error(
      ErrorKind::NotFound, {"'b'", "team/math-2"}, [&] { set.find("b"); });
  test::expect_error(
      ErrorKind::NotFound, {"'b'"}, [&] { unmount_adapter(set, "b"); });
  EXPECT_FALSE(are_equal(kept, nullptr)); // outlives its unmounting
  // Another adapter under an old name is another one for kept prefixes.
  mount_adapter(set, "b", write("three", 200));
  EXPECT_NE(set.find("b")->key, kept->key);
}

TEST_F(AdapterSetTest, RefusesNamesAndSelections) {
  AdapterSet set(model_);
  const auto path = write("one", 1);
  mount_adapter(set, "a", path);
  for (const char* name : {"", "base", "a+b", "a b", "a*2"}) {
    test::expect_error(ErrorKind::InvalidInput, {"letters, digits"}, [&] {
      mount_adapter(set, name, path);
    });
  }
  test::expect_error(ErrorKind::InvalidInput, {"is mounted from"}, [&] {
    mount_adapter(set, "a", path);
  });
  for (const char* selection : {"a+", "+a", "a*", "a*x", "a*inf", "a*0.5x"}) {
    test::expect_error(ErrorKind::InvalidInput, {selection, "a*0.5+b"}, [&] {
      set.find(selection);
    });
  }
}

TEST_F(AdapterSetTest, StacksAddWhatEachAdds) {
  AdapterSet set(model_, {.compute = Compute::Exact});
  const auto one = write("one", 1);
  const auto two = write("two", 100, 3);
  mount_adapter(set, "a", one);
  mount_adapter(set, "b", two);
  const auto sum = sum_of(
      {{load_updates(open_adapter(one, *model_)), 0.5},
       {load_updates(open_adapter(two, *model_)), 1.0}});
  std::filesystem::create_directory(scratch_ / "sum");
  write_adapter(
      {.updates = sum, .record = artifacts::Json::object()}, scratch_ / "sum");
  mount_adapter(set, "sum", scratch_ / "sum");
  EXPECT_TRUE(are_equal(set.find("a*0.5+b"), set.find("sum")));
  EXPECT_FALSE(are_equal(set.find("a*0.5+b"), set.find("a+b")));
  EXPECT_EQ(set.find("a*0.5+b"), set.find("a*0.5+b")); // made once
}

TEST_F(AdapterSetTest, ThoseInUseStayTheOthersGoLeastRecentlyUsedFirst) {
  const std::vector<std::string> names{"a", "b", "c", "d"};
  std::size_t bytes = 0;
  {
    AdapterSet set(model_);
    for (unsigned i = 0; i < 4; ++i) {
      mount_adapter(set, names[i], write(names[i], 100 * i));
    }
    bytes = list_adapters(set).front().resident_bytes;
  }
  AdapterSet set(model_, {.max_resident_bytes = 2 * bytes});
  const auto residents = [&] {
    std::string all;
    for (const MountedAdapter& entry : list_adapters(set)) {
      all += entry.resident_bytes > 0 ? entry.id : "";
    }
    return all;
  };
  for (const std::string& name : names) {
    mount_adapter(set, name, scratch_ / name);
  }
  EXPECT_EQ(residents(), "cd");
  auto a = set.find("a");
  EXPECT_EQ(residents(), "ad");
  const std::string key = a->key;
  const mx::array before = logits(a);
  set.find("b");
  set.find("c");
  EXPECT_EQ(residents(), "ac"); // a is in use
  const auto c = set.find("c");
  test::expect_error(
      ErrorKind::Exhausted, {"in use", std::to_string(2 * bytes)}, [&] {
        set.find("d");
      });
  a.reset();
  set.find("d");
  EXPECT_EQ(residents(), "cd");
  // Read again, it is the same one.
  set.find("b");
  const auto again = set.find("a");
  EXPECT_EQ(again->key, key);
  EXPECT_TRUE(same_bits(io::floats(before), io::floats(logits(again))));
}

TEST_F(AdapterSetTest, AHundredLieReadyToBeSwitchedBetween) {
  constexpr int kAdapters = 100;
  AdapterSet set(model_);
  const auto path = write("one", 1, 16);
  std::vector<const nn::Adapter*> residents;
  for (int i = 0; i < kAdapters; ++i) {
    mount_adapter(set, std::to_string(i), path);
    residents.push_back(set.find(std::to_string(i)).get());
  }
  for (const MountedAdapter& entry : list_adapters(set)) {
    EXPECT_GT(entry.resident_bytes, 0U) << entry.id;
    // Its parameters in bf16, and 5 % at most.
    EXPECT_LE(entry.resident_bytes, entry.parameters * 2 * 105 / 100);
  }
  using Clock = std::chrono::steady_clock;
  std::vector<Clock::duration> switches;
  for (int i = 0; i < 5 * kAdapters; ++i) {
    const int which = 37 * i % kAdapters;
    const auto start = Clock::now();
    const AdapterActivation active(set, std::to_string(which));
    switches.push_back(Clock::now() - start);
    ASSERT_EQ(active_adapter().get(), residents[which]); // not read again
  }
  std::sort(switches.begin(), switches.end());
  EXPECT_LT(switches[switches.size() / 2], std::chrono::milliseconds(1));
}

TEST_F(AdapterSetTest, AnotherFileInItsPlaceIsAnotherAdapter) {
  const auto path = write("one", 1);
  std::size_t bytes = 0;
  {
    AdapterSet set(model_);
    mount_adapter(set, "a", path);
    bytes = list_adapters(set).front().resident_bytes;
  }
  AdapterSet set(model_, {.max_resident_bytes = bytes});
  mount_adapter(set, "a", path);
  mount_adapter(set, "b", write("two", 100));
  const std::string key = set.find("a")->key;
  std::filesystem::remove_all(path);
  std::filesystem::rename(write("three", 300), path);
  set.find("b"); // a goes
  EXPECT_NE(set.find("a")->key, key);
  EXPECT_FALSE(are_equal(set.find("a"), nullptr));
}

TEST_F(AdapterSetTest, ActivationsBelongToTheirThread) {
  AdapterSet set(model_);
  mount_adapter(set, "a", write("one", 1));
  mount_adapter(set, "b", write("two", 100));
  EXPECT_EQ(active_adapter(), nullptr);
  {
    const AdapterActivation outer(set, "a");
    std::thread other([&] {
      EXPECT_EQ(active_adapter(), nullptr);
      const AdapterActivation own(set, "b");
      EXPECT_EQ(active_adapter(), set.find("b"));
    });
    other.join();
    EXPECT_EQ(active_adapter(), set.find("a"));
    {
      const AdapterActivation inner(set, "base");
      EXPECT_EQ(active_adapter(), nullptr);
    }
    EXPECT_EQ(active_adapter(), set.find("a"));
  }
  EXPECT_EQ(active_adapter(), nullptr);
}

TEST_F(AdapterSetTest, GenerationRunsWithTheActivationOfItsThread) {
  AdapterSet set(model_);
  mount_adapter(set, "a", write("one", 1));
  mount_adapter(set, "b", write("two", 100));
  const auto generate = [&](generate::Engine& engine) {
    return generate::generate(
               engine,
               tokens_,
               {.max_tokens = 60, .sampler = {.temperature = 1.5f}})
        .tokens;
  };
  const auto alone = [&](const std::string& id) {
    models::Setup setup(model_, Compute::Fast);
    setup.adapter = set.find(id);
    generate::Engine engine(setup, {});
    return generate(engine);
  };
  std::vector<std::vector<std::int32_t>> expected;
  for (const char* id : {"base", "a", "b"}) {
    expected.push_back(alone(id));
  }
  EXPECT_NE(expected[0], expected[1]);
  EXPECT_NE(expected[1], expected[2]);

  // One engine: what an adapter left in it is nothing to another.
  std::vector<std::vector<std::int32_t>> found(3);
  generate::Engine engine({model_, Compute::Fast}, {});
  {
    const AdapterActivation activation(set, "a");
    found[1] = generate(engine);
    std::thread other([&] {
      const AdapterActivation own(set, "b");
      found[2] = generate(engine);
    });
    other.join();
    EXPECT_EQ(generate(engine), expected[1]);
  }
  found[0] = generate(engine);
  EXPECT_EQ(found, expected);
}

} // namespace
} // namespace optiq::adapters
