#include "optiq/cache/prefix_tree.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.h"

#include "optiq/kernels/cpu/block_memory.h"

namespace optiq::cache {
namespace {

using kernels::BlockId;
using Tokens = std::vector<std::int32_t>;

kernels::KvFormat kv(int window = 0) {
  return kernels::cpu_device().kv_format(
      {.dtype = mlx::core::bfloat16,
       .n_kv_heads = 1,
       .head_dim = 16,
       .window = window});
}
constexpr std::size_t kBlock = 2 * 16 * 64 * 2; // K and V, bf16
const RecurrentFormat kState{.conv_floats = 10, .state_floats = 54};
constexpr std::size_t kStateBytes = 64 * sizeof(float);

const std::vector<LayerFormat> kFull{kv(), kv()};
const std::vector<LayerFormat> kHybrid{kState, kv()};
const std::vector<LayerFormat> kWindowed{
    kv(100),
    kv(),
    SharedFormat{.layer = 1}};

/** n tokens of a text of this name. */
Tokens text(int name, int n) {
  std::mt19937 random(name);
  Tokens tokens(n);
  for (auto& token : tokens) {
    token = static_cast<std::int32_t>(random() % 1000);
  }
  return tokens;
}

Tokens operator+(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/** What the model of these tests writes: into a block of K/V its tokens, into
 * states a mark. */
float* floats_in(BlockId block) {
  return reinterpret_cast<float*>(kernels::cpu::address_of(block));
}

Tokens tokens_in(BlockId block, std::size_t n) {
  const float* from = floats_in(block);
  return {from, from + n};
}

/** What stands in a layer's states after these tokens: a mark of them all. */
float mark_of(std::span<const std::int32_t> tokens) {
  float mark = 1;
  for (const std::int32_t token : tokens) {
    mark = static_cast<float>((static_cast<int>(mark) * 31 + token) % 65521);
  }
  return mark;
}

/** A pool with a tree, and that model. */
struct Cache {
  explicit Cache(
      const std::vector<LayerFormat>& formats,
      std::size_t max_bytes = 1 << 30)
      : layers(formats),
        pool(std::make_shared<BlockPool>(max_bytes)),
        tree(std::make_unique<PrefixTree>(pool)) {}

  /** Brings a sequence to the first n of the tokens. */
  void extend(Sequence& sequence, const Tokens& tokens, int n) {
    const int from = sequence.length();
    sequence.reserve(n);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const int layer = static_cast<int>(i);
      if (std::holds_alternative<RecurrentFormat>(layers[i])) {
        *floats_in(sequence.blocks(layer).front()) =
            mark_of(std::span(tokens).first(n));
        continue;
      }
      const auto blocks = sequence.blocks(layer);
      for (int t = from; t < n && !blocks.empty(); ++t) {
        floats_in(blocks[t / 64])[t % 64] = static_cast<float>(tokens[t]);
      }
    }
    sequence.commit(n - from);
    EXPECT_LE(pool->used_bytes(), pool->max_bytes());
  }

  int find(const std::string& key, const Tokens& tokens) const {
    return tree->find(key, layers, tokens).length;
  }

  std::unique_ptr<Sequence> start() {
    return std::make_unique<Sequence>(pool, layers);
  }

  /** A sequence of all tokens, kept at `border`. */
  std::unique_ptr<Sequence>
  prefill(const std::string& key, const Tokens& tokens, int border) {
    auto sequence = tree->resume(key, layers, tokens);
    if (border > sequence->length()) {
      extend(*sequence, tokens, border);
    }
    tree->insert(key, std::span(tokens).first(sequence->length()), *sequence);
    extend(*sequence, tokens, static_cast<int>(tokens.size()));
    return sequence;
  }

  /** Expects that a sequence resumes `length` of the tokens, with what a
   * sequence of them alone would hold. */
  void
  expect_resumed(const std::string& key, const Tokens& tokens, int length) {
    EXPECT_EQ(find(key, tokens), length);
    const auto sequence = tree->resume(key, layers, tokens);
    EXPECT_EQ(sequence->length(), length);
    for (std::size_t i = 0; i < layers.size() && length > 0; ++i) {
      const int layer = static_cast<int>(i);
      if (std::holds_alternative<RecurrentFormat>(layers[i])) {
        const float mark = mark_of(std::span(tokens).first(length));
        EXPECT_EQ(*floats_in(sequence->blocks(layer).front()), mark);
      }
      const auto* format = std::get_if<kernels::KvFormat>(&layers[i]);
      const auto blocks = sequence->blocks(layer);
      ASSERT_EQ(
          blocks.size(),
          format == nullptr ? blocks.size() : blocks_for(length));
      for (std::size_t b = 0; format != nullptr && b < blocks.size(); ++b) {
        // The last token of the block, seen from the first new one.
        const int end = std::min(length, static_cast<int>(64 * (b + 1)));
        const int distance = length - end + 1;
        const bool visible = format->window == 0 || distance < format->window;
        ASSERT_EQ(blocks[b] != BlockId::None, visible) << i << " " << b;
        if (visible) {
          const auto piece = std::span(tokens).first(end).subspan(64 * b);
          EXPECT_EQ(
              tokens_in(blocks[b], piece.size()),
              Tokens(piece.begin(), piece.end()));
        }
        // Whoever resumes it writes into a last block that is not full.
        EXPECT_EQ(end % 64 == 0 && visible, pool->is_shared(blocks[b]));
      }
    }
  }

  std::vector<LayerFormat> layers;
  std::shared_ptr<BlockPool> pool;
  std::unique_ptr<PrefixTree> tree;
};

TEST(BlockPool, ABlockLivesUntilItsLastOwnerReleasesIt) {
  BlockPool pool(1000);
  const BlockId a = pool.allocate(600);
  pool.share(a);
  pool.share(a);
  for (int owners = 3; owners > 1; --owners) {
    EXPECT_TRUE(pool.is_shared(a));
    pool.release(a, 600);
    EXPECT_EQ(pool.used_bytes(), 600U);
  }
  EXPECT_FALSE(pool.is_shared(a));
  pool.release(a, 600);
  EXPECT_EQ(pool.used_bytes(), 0U);
}

TEST(PrefixTree, FindsTheLongestPrefixShorterThanThePrompt) {
  Cache cache(kFull);
  const Tokens tokens = text(1, 300);
  cache.expect_resumed("", tokens, 0);
  const auto sequence = cache.prefill("", tokens, 300);
  EXPECT_EQ(cache.tree->n_nodes(), 4u);
  cache.expect_resumed("", tokens, 256);
  cache.expect_resumed("", tokens + text(2, 100), 256);
  for (const auto& [n, length] : std::map<int, int>{
           {0, 0},
           {1, 0},
           {2, 1},
           {64, 63},
           {65, 64},
           {128, 127},
           {129, 128},
           {257, 256}}) {
    cache.expect_resumed("", text(1, n), length);
  }
  // K/V can be cut anywhere.
  cache.expect_resumed("", text(1, 100) + text(2, 100), 100);
  cache.expect_resumed("", text(1, 63) + text(2, 100), 63);
  cache.expect_resumed("", text(2, 100), 0);
}

TEST(PrefixTree, AHitCopiesNoBlock) {
  Cache cache(kFull);
  const Tokens tokens = text(1, 300);
  const auto first = cache.prefill("", tokens, 300);
  const std::size_t used = cache.pool->used_bytes();
  EXPECT_EQ(used, 2 * 5 * kBlock);
  const auto second = cache.tree->resume("", cache.layers, tokens);
  EXPECT_EQ(cache.pool->used_bytes(), used);
  for (const int layer : {0, 1}) {
    for (int b = 0; b < 4; ++b) {
      EXPECT_EQ(first->blocks(layer)[b], second->blocks(layer)[b]);
    }
  }
  // What it writes is its own.
  cache.extend(*second, text(1, 256) + text(2, 20), 276);
  EXPECT_NE(first->blocks(0)[4], second->blocks(0)[4]);
}

TEST(PrefixTree, KeysNeverShare) {
  Cache cache(kHybrid);
  const Tokens tokens = text(1, 200);
  cache.prefill("tenant a", tokens, 192);
  cache.expect_resumed("tenant b", tokens, 0);
  cache.expect_resumed("", tokens, 0);
  cache.expect_resumed("tenant a", tokens, 192);
  cache.prefill("tenant b", tokens, 128);
  cache.expect_resumed("tenant b", tokens, 128);
}

TEST(PrefixTree, StatesResumeOnlyAtASnapshot) {
  Cache cache(kHybrid);
  const Tokens tokens = text(1, 400);
  // No border: nothing is usable, so nothing is kept.
  cache.prefill("", tokens, 250);
  EXPECT_EQ(cache.tree->n_nodes(), 0u);
  EXPECT_EQ(cache.pool->used_bytes(), 0u);
  cache.prefill("", tokens, 256);
  cache.expect_resumed("", tokens, 256);
  cache.expect_resumed("", text(1, 256), 0);
  cache.prefill("", text(1, 256), 128);
  cache.expect_resumed("", text(1, 256), 128);
  EXPECT_EQ(cache.tree->n_nodes(), 4u);
  EXPECT_EQ(cache.pool->used_bytes(), 4 * kBlock + 2 * kStateBytes);
}

TEST(PrefixTree, WindowedLayersResumeWhereWhatIsVisibleWasKept) {
  Cache cache(kWindowed);
  const Tokens tokens = text(1, 500);
  cache.prefill("", tokens, 448);
  // From 448 on, tokens from 349 on are visible: blocks 5 and 6.
  EXPECT_EQ(cache.pool->used_bytes(), (7 + 2) * kBlock);
  cache.expect_resumed("", tokens, 448);
  cache.expect_resumed("", text(1, 421), 420); // sees 321 and later
  cache.expect_resumed("", text(1, 400), 0); // would see 300
  cache.prefill("", text(1, 400), 320); // blocks 3 and 4
  // Blocks 4 and 5 are visible at 399: the two together have them.
  cache.expect_resumed("", text(1, 400), 399);
  cache.expect_resumed("", text(1, 385), 384);
  cache.expect_resumed("", text(1, 290), 0); // would see 190
  cache.expect_resumed("", tokens, 448);
}

TEST(PrefixTree, KeepsTheEndOfASequenceThatIsNoMore) {
  for (const auto& layers : {kFull, kHybrid, kWindowed}) {
    Cache cache(layers);
    const Tokens tokens = text(1, 300);
    auto sequence = cache.start();
    cache.extend(*sequence, tokens, 300);
    const std::size_t held = cache.pool->used_bytes();
    cache.tree->insert_whole("", tokens, std::move(sequence));
    // Nothing was copied, and all of it goes when others need it.
    EXPECT_EQ(cache.pool->used_bytes(), held);
    EXPECT_EQ(cache.tree->kept_bytes(), held);
    cache.expect_resumed("", tokens + text(2, 20), 300);
    // What who resumes it writes is its own.
    const auto next =
        cache.tree->resume("", cache.layers, tokens + text(2, 20));
    cache.extend(*next, tokens + text(2, 20), 320);
    cache.expect_resumed("", tokens + text(3, 20), 300);
    // States stand at its end only.
    EXPECT_EQ(cache.find("", tokens), fixed_bytes(layers) > 0 ? 0 : 299);
  }
}

TEST(PrefixTree, FindsTheLongestOfSeveralEnds) {
  Cache cache(kHybrid);
  const Tokens tokens = text(1, 120);
  for (const int n : {70, 100, 90}) {
    auto sequence = cache.start();
    cache.extend(*sequence, tokens, n);
    cache.tree->insert_whole(
        "", std::span(tokens).first(n), std::move(sequence));
  }
  EXPECT_EQ(cache.find("", tokens), 100);
  EXPECT_EQ(cache.find("", text(1, 101)), 100);
  EXPECT_EQ(cache.find("", text(1, 100)), 90);
  EXPECT_EQ(cache.find("", text(1, 80) + text(2, 40)), 70);
  EXPECT_EQ(cache.find("", text(1, 70)), 0);
}

TEST(PrefixTree, ResumesNothingWhereAnEndCannotBeCopied) {
  Cache cache(kFull, 4 * kBlock);
  const Tokens tokens = text(1, 100);
  auto sequence = cache.start();
  cache.extend(*sequence, tokens, 100);
  cache.tree->insert_whole("", tokens, std::move(sequence));
  const auto next = cache.tree->resume("", cache.layers, tokens + text(2, 9));
  EXPECT_EQ(next->length(), 0);
  EXPECT_EQ(next->bytes(), 0u);
}

TEST(PrefixTree, LayoutsNeverShare) {
  Cache cache(kFull);
  const Tokens tokens = text(1, 200);
  cache.prefill("", tokens, 192);
  kernels::KvFormat coded = kv();
  coded.codec = {
      .method = kernels::KvMethod::Affine, .key_bits = 4, .value_bits = 4};
  coded.codec.group_size = 32;
  coded.head_dim = 64;
  const std::vector<LayerFormat> other{
      kernels::cpu_device().kv_format(coded), kv()};
  EXPECT_EQ(cache.tree->find("", other, tokens).length, 0);
  {
    Sequence sequence(cache.pool, other);
    sequence.reserve(192);
    sequence.commit(192);
    cache.tree->insert("", std::span(tokens).first(192), sequence);
  }
  EXPECT_EQ(cache.tree->find("", other, tokens).length, 192);
  EXPECT_EQ(cache.tree->n_nodes(), 6u);
  // One memory for both: the older one goes first.
  EXPECT_EQ(cache.tree->kept_bytes(), cache.pool->used_bytes());
  cache.expect_resumed("", tokens, 192);
}

TEST(PrefixTree, TellsWhatAResumeCosts) {
  Cache cache(kFull);
  const Tokens tokens = text(1, 300);
  auto sequence = cache.prefill("", tokens, 300);
  // Four whole blocks are held by the sequence, too.
  EXPECT_EQ(cache.tree->kept_bytes(), 0u);
  EXPECT_EQ(cache.tree->find("", kFull, tokens).held_bytes, 8 * kBlock);
  sequence.reset();
  EXPECT_EQ(cache.tree->kept_bytes(), 8 * kBlock);
  EXPECT_EQ(cache.tree->find("", kFull, tokens).held_bytes, 0u);
  const auto next = cache.tree->resume("", cache.layers, text(1, 129));
  EXPECT_EQ(cache.tree->kept_bytes(), 4 * kBlock);
  EXPECT_EQ(next->bytes(), 4 * kBlock);
}

TEST(PrefixTree, KnowsMoreThanItCanResume) {
  Cache cache(kHybrid);
  cache.prefill("", text(1, 300), 256);
  const auto match = cache.tree->find("", kHybrid, text(1, 200) + text(2, 100));
  EXPECT_EQ(match.length, 0);
  EXPECT_EQ(match.known_length, 192);
}

TEST(PrefixTree, RefusesTokensThatAreNotTheSequence) {
  Cache cache(kFull);
  const auto sequence = cache.prefill("", text(1, 100), 100);
  test::expect_error(ErrorKind::InvalidInput, {"found 99", "100"}, [&] {
    cache.tree->insert("", text(1, 99), *sequence);
  });
}

TEST(PrefixTree, EvictsTheLeastRecentlyUsedLeafFirst) {
  // Two branches of two blocks behind one common block: 5 x 2 layers.
  Cache cache(kFull, 10 * kBlock);
  const Tokens common = text(1, 64);
  const Tokens a = common + text(2, 129);
  const Tokens b = common + text(3, 129);
  for (const Tokens* tokens : {&a, &b}) {
    const auto sequence = cache.tree->resume("", cache.layers, *tokens);
    cache.extend(*sequence, *tokens, 192);
    cache.tree->insert("", std::span(*tokens).first(192), *sequence);
  }
  EXPECT_EQ(cache.pool->used_bytes(), 10 * kBlock);
  cache.expect_resumed("", b, 192);
  cache.expect_resumed("", a, 192); // now b is the older one
  const std::vector<std::pair<int, int>> left{
      {192, 128}, {192, 64}, {128, 64}, {64, 64}, {0, 0}};
  std::vector<BlockId> taken;
  for (const auto& [of_a, of_b] : left) {
    taken.push_back(cache.pool->allocate(2 * kBlock));
    EXPECT_EQ(cache.find("", a), of_a);
    EXPECT_EQ(cache.find("", b), of_b);
  }
  EXPECT_EQ(cache.tree->n_nodes(), 0u);
  test::expect_error(
      ErrorKind::Exhausted, {}, [&] { cache.pool->allocate(1); });
  for (const BlockId block : taken) {
    cache.pool->release(block, 2 * kBlock);
  }
}

TEST(PrefixTree, SparesWhatSequencesHold) {
  Cache cache(kFull, 8 * kBlock);
  const Tokens tokens = text(1, 128);
  const auto held = cache.prefill("", tokens, 128);
  cache.prefill("", text(2, 128), 128); // used later, but held by nobody
  const auto sequence = cache.start();
  cache.extend(*sequence, text(3, 128), 128);
  EXPECT_EQ(cache.find("", text(2, 129)), 0);
  EXPECT_EQ(cache.find("", text(1, 129)), 128);
  test::expect_error(ErrorKind::Exhausted, {}, [&] { sequence->reserve(129); });
  EXPECT_EQ(cache.find("", text(1, 129)), 128);
}

TEST(PrefixTree, SnapshotsGoApartFromTheirNodes) {
  Cache cache(kHybrid, 4 * kBlock + 2 * kStateBytes);
  const Tokens tokens = text(1, 257);
  {
    const auto sequence = cache.start();
    for (const int border : {128, 256}) {
      cache.extend(*sequence, tokens, border);
      // Room for one snapshot beside the states: the first one goes.
      cache.tree->insert("", std::span(tokens).first(border), *sequence);
    }
  }
  EXPECT_EQ(cache.pool->used_bytes(), 4 * kBlock + kStateBytes);
  cache.expect_resumed("", tokens, 256);
  cache.expect_resumed("", text(1, 256), 0);
  // The last snapshot takes all that led to it along.
  const BlockId rest = cache.pool->allocate(2 * kStateBytes);
  EXPECT_EQ(cache.tree->n_nodes(), 0u);
  EXPECT_EQ(cache.pool->used_bytes(), 2 * kStateBytes);
  cache.pool->release(rest, 2 * kStateBytes);
}

// A sequence holds the last block of every layer, but its window has let go of
// earlier ones that the tree still has.
TEST(PrefixTree, GivesBackHiddenBlocksBehindAHeldLeaf) {
  Cache cache({kv(65), kv()}, 16 * kBlock);
  const Tokens tokens = text(1, 449);
  const auto sequence = cache.start();
  for (int border = 64; border <= 384; border += 64) {
    cache.extend(*sequence, tokens, border);
    cache.tree->insert("", std::span(tokens).first(border), *sequence);
  }
  EXPECT_EQ(cache.pool->used_bytes(), 12 * kBlock);
  // Its own: 7 blocks and one in the window.
  const BlockId rest = cache.pool->allocate(7 * kBlock);
  cache.extend(*sequence, tokens, 448);
  EXPECT_EQ(cache.pool->used_bytes(), 15 * kBlock);
  cache.pool->release(rest, 7 * kBlock);
}

/** Prefills and completions of random texts with common beginnings under a
 * tight cap: whatever is resumed is right, and all memory comes back. */
TEST(PrefixTree, StaysRightUnderATightCap) {
  for (const auto& layers : {kFull, kHybrid, kWindowed}) {
    Cache cache(layers, 40 * kBlock);
    std::mt19937 random(7);
    struct Running {
      std::string key;
      Tokens tokens;
      std::unique_ptr<Sequence> sequence;
    };
    std::vector<Running> running;
    int hits = 0;
    for (int round = 0; round < 400; ++round) {
      Tokens tokens;
      while (tokens.size() < 64 * (1 + random() % 6)) {
        tokens = tokens + text(static_cast<int>(random() % 2), 64);
      }
      tokens = tokens + text(5, static_cast<int>(random() % 64));
      const std::string key = random() % 4 == 0 ? "a" : "b";
      const int length = cache.find(key, tokens);
      hits += length > 0 ? 1 : 0;
      cache.expect_resumed(key, tokens, length);
      if (running.size() == 3) {
        const auto ended = running.begin() + random() % 3;
        if (random() % 2 == 0) {
          cache.tree->insert_whole(
              ended->key, ended->tokens, std::move(ended->sequence));
        }
        running.erase(ended);
      }
      running.push_back(
          {key,
           tokens,
           cache.prefill(
               key, tokens, static_cast<int>(tokens.size() / 64 * 64))});
    }
    EXPECT_GT(hits, 100);
    running.clear();
    cache.tree.reset();
    EXPECT_EQ(cache.pool->used_bytes(), 0u);
  }
}

// States of a few bytes would never reach the pool's cap.
TEST(PrefixTree, BoundsItsOwnSize) {
  const std::vector<LayerFormat> layers{
      RecurrentFormat{.conv_floats = 1, .state_floats = 1}};
  Cache cache(layers);
  constexpr int kTexts = 20'000;
  for (int i = 0; i < kTexts; ++i) {
    auto sequence = cache.start();
    const Tokens tokens{i, 1, 2};
    cache.extend(*sequence, tokens, 3);
    cache.tree->insert_whole("", tokens, std::move(sequence));
    ASSERT_LE(cache.tree->n_nodes(), 1u << 14);
  }
  EXPECT_GT(cache.tree->n_nodes(), 1u << 13);
  EXPECT_EQ(cache.tree->kept_bytes(), cache.pool->used_bytes());
  EXPECT_EQ(cache.find("", {kTexts - 1, 1, 2, 3}), 3);
  EXPECT_EQ(cache.find("", {0, 1, 2, 3}), 0);
}

TEST(BorderToKeep, IsTheLastBlockWhereASnapshotPays) {
  // A snapshot is worth the K/V of 2.5 blocks in both layers' bytes.
  const std::vector<LayerFormat> layers{
      RecurrentFormat{.conv_floats = 0, .state_floats = 5 * kBlock / 4}, kv()};
  for (const auto& [from_and_tokens, border] :
       std::map<std::pair<int, int>, int>{
           {{0, 63}, 0},
           {{0, 191}, 0},
           {{0, 192}, 192},
           {{0, 255}, 192},
           {{64, 255}, 0},
           {{64, 256}, 256},
           {{256, 256}, 0},
           {{320, 256}, 0}}) {
    EXPECT_EQ(
        border_to_keep(layers, from_and_tokens.first, from_and_tokens.second),
        border)
        << from_and_tokens.first << " " << from_and_tokens.second;
  }
  EXPECT_EQ(border_to_keep(kFull, 0, 64), 64);
  EXPECT_FALSE(needs_border(kFull));
  EXPECT_TRUE(needs_border(kHybrid));
  EXPECT_TRUE(needs_border(kWindowed));
}

} // namespace
} // namespace optiq::cache
