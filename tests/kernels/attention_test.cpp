#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "kernels/attention_oracle.h"
#include "support/cpu_operations.h"
#include "support/kernel_checks.h"

#include "optiq/base/error.h"
#include "optiq/kernels/mlx/portable.h"

namespace optiq::kernels {
namespace {

namespace mx = mlx::core;
using testing::rows_of;
using testing::same_bits;

using dense_oracle::append;
using dense_oracle::attend_in_double;
using dense_oracle::Blocks;
using dense_oracle::Case;
using dense_oracle::expect_close;
using dense_oracle::Inputs;
using dense_oracle::Oracle;
using dense_oracle::run_chunks;
using dense_oracle::stored;

const std::vector<Case> kCases{
    {1, 1, 16, mx::float32},
    {2, 1, 64, mx::bfloat16},
    {6, 2, 80, mx::float32},
    {6, 2, 80, mx::bfloat16},
    {8, 1, 128, mx::bfloat16},
    {3, 1, 256, mx::float32},
    {9, 3, 64, mx::bfloat16},
    {4, 4, 96, mx::bfloat16},
    {2, 1, 20, mx::float32},
    {2, 1, 20, mx::bfloat16},
    {1, 1, 6, mx::bfloat16},
    {1, 1, 3, mx::float32},
};

TEST(Attention, MatchesDoubleForEveryShapeAndTarget) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(
        ::testing::Message()
        << c.n_heads << "/" << c.n_kv_heads << " heads of " << c.head_dim);
    const Inputs in(c, 135, 7);
    const Oracle oracle = attend_in_double(c, in);
    testing::for_each_target([&] {
      expect_close(run_chunks(c, in, {65, 70}), oracle);
      expect_close(run_chunks(c, in, std::vector<int>(135, 1)), oracle);
    });
  }
}

TEST(Attention, MatchesDoubleAroundBlockBorders) {
  const Case c{2, 1, 16, mx::bfloat16};
  const std::vector<int> sizes{1, 63, 64, 65, 127, 128, 200};
  const Inputs in(c, 400, 11);
  const Oracle oracle = attend_in_double(c, in);
  for (const int start : {0, 1, 63, 64, 65, 127, 128, 200}) {
    for (const int rows : sizes) {
      SCOPED_TRACE(::testing::Message() << rows << " rows at " << start);
      std::vector<int> chunks{rows};
      if (start > 0) {
        chunks.insert(chunks.begin(), start);
      }
      Inputs part = in;
      part.q = rows_of(in.q, 0, start + rows);
      Oracle expected = oracle;
      expected.y.resize(part.q.size());
      expect_close(run_chunks(c, part, chunks), expected);
    }
  }
}

TEST(Attention, CapsScores) {
  const std::vector<Case> cases{
      {2, 1, 32, mx::float32, 0, 0.5f},
      {2, 1, 32, mx::float32, 65, 50.f},
      {2, 1, 32, mx::bfloat16, 0, 2.f},
      {2, 1, 32, mx::bfloat16, 65, 0.5f}};
  for (const Case& c : cases) {
    SCOPED_TRACE(::testing::Message() << c.softcap << ", " << c.window);
    const Inputs in(c, 270, 23);
    const Oracle oracle = attend_in_double(c, in);
    testing::for_each_target([&] {
      const std::vector<float> whole = run_chunks(c, in, {270});
      expect_close(whole, oracle);
      EXPECT_TRUE(same_bits(whole, run_chunks(c, in, {63, 1, 130, 76})));
    });
  }
}

TEST(Attention, MatchesPortable) {
  for (const int window : {0, 1, 64, 100, 512}) {
    SCOPED_TRACE(window);
    const Case c{6, 2, 64, mx::float32, window, window == 100 ? 1.5f : 0.f};
    const Inputs in(c, 150, 3);
    mx::array y = mx::contiguous(
        portable::attend(rows_of(in.q, 60, 90), in.k, in.v, c.rule(), window));
    mx::eval(y);
    Oracle oracle = attend_in_double(c, in);
    const std::size_t skip = std::size_t{60} * c.n_heads * c.head_dim;
    oracle.y.erase(oracle.y.begin(), oracle.y.begin() + skip);
    oracle.bound.erase(oracle.bound.begin(), oracle.bound.begin() + skip);
    expect_close(io::floats(y), oracle);
  }
}

const std::vector<int> kWindows{1, 63, 64, 65, 128, 512};

TEST(Attention, AWindowHidesOlderTokens) {
  for (const int window : kWindows) {
    SCOPED_TRACE(window);
    const Case c{3, 1, 16, mx::bfloat16, window};
    const Inputs in(c, 600, 13);
    const Oracle oracle = attend_in_double(c, in);
    testing::for_each_target([&] {
      expect_close(run_chunks(c, in, {130, 1, 400, 69}), oracle);
    });
  }
}

TEST(Attention, ChunksOfAWindowDoNotChangeABit) {
  for (const int window : kWindows) {
    SCOPED_TRACE(window);
    const Case c{6, 2, 64, mx::bfloat16, window};
    const Inputs in(c, 600, 17);
    testing::for_each_target([&] {
      const std::vector<float> whole = run_chunks(c, in, {600});
      EXPECT_TRUE(same_bits(whole, run_chunks(c, in, {63, 130, 1, 300, 106})));
      EXPECT_TRUE(
          same_bits(whole, run_chunks(c, in, std::vector<int>(600, 1))));
    });
  }
}

/** Makes keys and values of one token NaN or infinite. */
void spoil(const Case& c, Inputs& in, int token, float with) {
  const int row = c.n_kv_heads * c.head_dim;
  for (mx::array* x : {&in.k, &in.v}) {
    std::fill_n(io::mutable_floats(*x).begin() + token * row, row, with);
  }
}

TEST(Attention, WhatAWindowHidesDoesNotSpread) {
  for (const mx::Dtype dtype : {mx::float32, mx::bfloat16}) {
    for (const int window : {64, 65}) {
      for (const int spoilt : {70, 71}) {
        SCOPED_TRACE(::testing::Message() << window << ", " << spoilt);
        const Case c{3, 1, 64, dtype, window};
        testing::for_each_target([&] {
          Inputs in(c, 200, 19);
          const std::vector<float> before = run_chunks(c, in, {200});
          spoil(c, in, spoilt, std::numeric_limits<float>::quiet_NaN());
          const std::vector<float> after = run_chunks(c, in, {200});
          const std::size_t row = std::size_t{3} * c.head_dim;
          for (int t = 0; t < 200; ++t) {
            const bool sees = t >= spoilt && t < spoilt + window;
            EXPECT_EQ(
                same_bits(
                    std::span(before).subspan(t * row, row),
                    std::span(after).subspan(t * row, row)),
                !sees)
                << t;
          }
        });
      }
    }
  }
}

TEST(Attention, ChunksDoNotChangeABit) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.head_dim);
    const Inputs in(c, 200, 5);
    testing::for_each_target([&] {
      const std::vector<float> whole = run_chunks(c, in, {200});
      EXPECT_TRUE(same_bits(whole, run_chunks(c, in, {64, 64, 64, 8})));
      EXPECT_TRUE(same_bits(whole, run_chunks(c, in, {1, 63, 65, 70, 1})));
      EXPECT_TRUE(
          same_bits(whole, run_chunks(c, in, std::vector<int>(200, 1))));
    });
  }
}

TEST(Attention, ThreadsDoNotChangeABit) {
  for (const Case& c : kCases) {
    const Inputs in(c, 200, 9);
    std::vector<std::vector<float>> outs;
    for (const int n : {1, 2, 5}) {
      const testing::Threads threads(n);
      outs.push_back(run_chunks(c, in, {150, 50}));
    }
    EXPECT_TRUE(same_bits(outs[0], outs[1]));
    EXPECT_TRUE(same_bits(outs[0], outs[2]));
  }
}

TEST(Attention, NeighboursDoNotChangeABit) {
  const Case c{6, 2, 80, mx::bfloat16};
  // Per sequence: tokens already there, rows in the batch.
  const std::vector<std::pair<int, int>> sequences{
      {100, 1}, {0, 70}, {63, 1}, {5, 0}, {64, 2}, {1, 130}};
  std::vector<Inputs> inputs;
  std::vector<Blocks> blocks;
  std::vector<mx::array> q, k, v;
  std::vector<Segment> segments;
  std::vector<float> alone;
  int row = 0;
  for (const auto& [start, rows] : sequences) {
    const Inputs& in = inputs.emplace_back(
        c, start + rows, 20 + static_cast<unsigned>(inputs.size()));
    const Blocks mine(c, start + rows);
    const Blocks& shared = blocks.emplace_back(c, start + rows);
    if (start > 0) {
      append(c, in, mine, 0, start);
      append(c, in, shared, 0, start);
    }
    segments.push_back(
        {.first_row = row,
         .rows = rows,
         .start = start,
         .blocks = shared.span()});
    row += rows;
    if (rows > 0) {
      const mx::array y = append(c, in, mine, start, rows);
      alone.insert(alone.end(), io::floats(y).begin(), io::floats(y).end());
      q.push_back(rows_of(in.q, start, rows));
      k.push_back(rows_of(in.k, start, rows));
      v.push_back(rows_of(in.v, start, rows));
    }
  }
  const mx::array y = append_and_attend(
      mx::concatenate(q, 0),
      mx::concatenate(k, 0),
      mx::concatenate(v, 0),
      segments,
      c.format(),
      c.rule());
  EXPECT_TRUE(same_bits(io::floats(y), alone));
}

TEST(Attention, RecycledBlocksDoNotShowThrough) {
  for (const Case& c : kCases) {
    const Inputs in(c, 70, 31);
    const Blocks clean(c, 70, 0x00);
    const Blocks dirty(c, 70, 0xff);
    EXPECT_TRUE(same_bits(
        io::floats(append(c, in, clean, 0, 70)),
        io::floats(append(c, in, dirty, 0, 70))));
  }
}

TEST(Attention, ReadsWhatIsThereWithoutKeysAndValues) {
  for (const Case& c : kCases) {
    const Inputs in(c, 70, 35);
    const Blocks blocks(c, 70);
    const mx::array first = append(c, in, blocks, 0, 70);
    const mx::array none =
        io::make_array({0, c.n_kv_heads, c.head_dim}, mx::float32);
    const std::vector<Segment> segments{
        {.first_row = 0, .rows = 70, .start = 0, .blocks = blocks.span()}};
    const auto attend_only = [&](const mx::array& k, const mx::array& v) {
      return append_and_attend(in.q, k, v, segments, c.format(), c.rule());
    };
    EXPECT_TRUE(
        same_bits(io::floats(attend_only(none, none)), io::floats(first)));
    EXPECT_THROW(attend_only(none, in.v), Error);
    EXPECT_THROW(attend_only(in.k, none), Error);
  }
}

TEST(Attention, ATokenSeesNoLaterOne) {
  for (const mx::Dtype dtype : {mx::float32, mx::bfloat16}) {
    for (const int spoilt : {80, 81}) {
      SCOPED_TRACE(spoilt);
      const Case c{3, 1, 64, dtype};
      testing::for_each_target([&] {
        Inputs in(c, 100, 41);
        const std::vector<float> before = run_chunks(c, in, {100});
        spoil(c, in, spoilt, std::numeric_limits<float>::infinity());
        const std::vector<float> after = run_chunks(c, in, {100});
        const std::size_t unchanged =
            std::size_t{1} * spoilt * c.n_heads * c.head_dim;
        EXPECT_TRUE(same_bits(
            std::span(before).first(unchanged),
            std::span(after).first(unchanged)));
        // And it reaches those that do see it.
        EXPECT_TRUE(std::isnan(after[unchanged]));
        EXPECT_TRUE(std::isnan(after.back()));
      });
    }
  }
}

TEST(Attention, QueriesRoundToNearestEven) {
  const std::vector<std::pair<float, float>> roundings{
      {1 + 0x1p-8f, 1.0f},
      {1 + 0x3p-8f, 1 + 0x4p-8f},
      {1 + 0x1p-8f + 0x1p-20f, 1 + 0x2p-8f},
      {1 + 0x1p-8f - 0x1p-20f, 1.0f},
      {-1 - 0x3p-8f, -1 - 0x4p-8f}};
  const Case c{1, 1, 2, mx::bfloat16};
  testing::for_each_target([&] {
    for (const auto& [query, rounded] : roundings) {
      std::vector<float> outs;
      for (const float x : {query, rounded}) {
        // Two tokens whose scores differ by 8 x: weights of both matter.
        Inputs in(c, 2, 1);
        in.q = testing::array_of({x, 0, x, 0}, {2, 1, 2});
        in.k = testing::array_of({4, 0, -4, 0}, {2, 1, 2});
        in.v = testing::array_of({1, 0, -1, 0}, {2, 1, 2});
        Blocks blocks(c, 2);
        const std::vector<Segment> segments{
            {.first_row = 0, .rows = 2, .start = 0, .blocks = blocks.span()}};
        const mx::array y = append_and_attend(
            in.q, in.k, in.v, segments, c.format(), {.scale = 1.0f});
        outs.push_back(io::floats(y)[2]);
      }
      EXPECT_EQ(outs[0], outs[1]) << query;
    }
  });
}

TEST(Attention, BlocksHoldKeysThenValues) {
  const Case c{2, 2, 6, mx::bfloat16};
  Inputs in(c, 67, 51);
  io::mutable_floats(in.k)[5] = std::numeric_limits<float>::quiet_NaN();
  io::mutable_floats(in.v)[7] = 0x1.8p-130f; // subnormal
  const std::vector<float> k = stored(c, in.k);
  const std::vector<float> v = stored(c, in.v);
  testing::for_each_target([&] {
    const Blocks blocks(c, 67);
    append(c, in, blocks, 0, 41);
    append(c, in, blocks, 41, 26);
    for (int t = 0; t < 67; ++t) {
      for (int h = 0; h < 2; ++h) {
        const auto* keys = reinterpret_cast<const std::uint16_t*>(
                               blocks.span()[t / kKvBlockTokens]) +
            2 * h * 6 * kKvBlockTokens;
        const std::uint16_t* values = keys + 6 * kKvBlockTokens;
        for (int i = 0; i < 6; ++i) {
          const auto bits = [](float x) {
            return std::bit_cast<std::uint32_t>(x) >> 16;
          };
          const int column = t % kKvBlockTokens;
          EXPECT_EQ(
              keys[(i / 2 * kKvBlockTokens + column) * 2 + i % 2],
              bits(k[(t * 2 + h) * 6 + i]));
          EXPECT_EQ(
              values[(column / 2 * 6 + i) * 2 + column % 2],
              bits(v[(t * 2 + h) * 6 + i]));
        }
      }
    }
  });
}

TEST(Attention, RefusesWhatDoesNotFit) {
  const Case c{2, 1, 16, mx::float32};
  const Inputs in(c, 70, 61);
  const Blocks blocks(c, 64);
  const auto refused = [&](const std::vector<Segment>& segments,
                           const KvFormat& format,
                           const std::string& word,
                           const ScoreRule& rule = {}) {
    try {
      append_and_attend(in.q, in.k, in.v, segments, format, rule);
      ADD_FAILURE() << "accepted: " << word;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::InvalidInput);
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos)
          << error.what();
    }
  };
  const Segment whole{
      .first_row = 0, .rows = 70, .start = 0, .blocks = blocks.span()};
  refused({whole}, c.format(), "1 blocks of 64 tokens");
  const std::vector<BlockId> holes{BlockId::None, blocks.span()[0]};
  Segment late_rows = whole;
  late_rows.blocks = holes;
  refused({late_rows}, c.format(), "no block for position 0");
  refused({}, c.format(), "softcap of -1", {.softcap = -1.f});
  Segment late = whole;
  late.first_row = 1;
  refused({late}, c.format(), "segment 0");
  refused({}, c.format(), "0 rows in all");
  refused({whole}, {mx::float32, 1, 16}, "no layout of its blocks");
  refused(
      {whole},
      make_kv_format({mx::float32, 1, 8}),
      "q: found shape [70, 2, 16]");
  refused({whole}, make_kv_format({mx::float32, 2, 16}), "k: found");
}

} // namespace
} // namespace optiq::kernels
