#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <mlx/ops.h>

#include "kernels/kv_attention_oracle.h"

#include "optiq/kernels/mlx/kv_codec.h"

namespace optiq::kernels::kv_oracle {
namespace {

TEST(KvAttention, MatchesDoubleAtEveryWidthAndHeadDim) {
  for (const int dim : {64, 80, 96, 128, 256}) {
    for (const Compute compute : {Compute::Fast, Compute::Exact}) {
      for (const KvFormat& f : all_widths(dim, compute)) {
        SCOPED_TRACE(name(f));
        const Inputs in(f.head_dim, 70, 7);
        const Blocks blocks(f, 70);
        const std::vector<float> y = run_chunks(f, in, {66, 1, 3}, blocks);
        expect_attention(f, in, blocks, y, 68);
      }
    }
  }
}

// A window that ends inside a block, at its border, past it, and past a span.
TEST(KvAttention, MatchesDoubleWithinAWindow) {
  for (const Compute compute : {Compute::Fast, Compute::Exact}) {
    for (KvFormat f : all_widths(64, compute)) {
      for (const int window : {1, 63, 64, 65, 150, 300}) {
        f.window = window;
        SCOPED_TRACE(name(f) + ", window " + std::to_string(window));
        const Inputs in(f.head_dim, 330, 11);
        const Blocks blocks(f, 330);
        const std::vector<float> y = run_chunks(f, in, {200, 129, 1}, blocks);
        expect_attention(f, in, blocks, y, 327);
      }
    }
  }
}

TEST(KvAttention, MatchesDoubleOnEveryTarget) {
  for (const Compute compute : {Compute::Fast, Compute::Exact}) {
    for (const KvFormat& f : all_widths(80, compute)) {
      SCOPED_TRACE(name(f));
      const Inputs in(f.head_dim, 70, 9);
      testing::for_each_target([&] {
        const Blocks blocks(f, 70);
        const std::vector<float> y = run_chunks(f, in, {70}, blocks);
        expect_attention(f, in, blocks, y, 67);
      });
    }
  }
}

TEST(KvAttention, MatchesDoubleInEveryGroupRotationAndMix) {
  for (const Compute compute : {Compute::Fast, Compute::Exact}) {
    std::vector<KvFormat> formats;
    for (const int group : {32, 64, 128}) {
      for (const int dim : {64, 80, 256}) {
        formats.push_back(
            {.head_dim = dim,
             .codec = {
                 .method = KvMethod::Affine,
                 .key_bits = 4,
                 .value_bits = 3,
                 .group_size = group}});
      }
    }
    for (const int dim : {64, 80}) {
      formats.push_back(
          {.head_dim = dim,
           .codec = {
               .method = KvMethod::Turbo,
               .key_bits = 3.5f,
               .value_bits = 2,
               .rotation = KvRotation::Orthogonal}});
    }
    // One side dense.
    formats.push_back(
        {.head_dim = 64, .codec = {.method = KvMethod::Affine, .key_bits = 4}});
    formats.push_back(
        {.head_dim = 64,
         .codec = {.method = KvMethod::Turbo, .value_bits = 3}});
    formats.push_back(
        {.dtype = mx::float32,
         .head_dim = 64,
         .codec = {.method = KvMethod::Turbo, .key_bits = 3}});
    for (KvFormat f : formats) {
      f.n_kv_heads = kKvHeads;
      f.compute = compute;
      f = make_kv_format(f);
      SCOPED_TRACE(name(f));
      // Three spans and, at the end, a decode step over all of them.
      const Inputs in(f.head_dim, 600, 15);
      const Blocks blocks(f, 600);
      const std::vector<float> y = run_chunks(f, in, {300, 299, 1}, blocks);
      expect_attention(f, in, blocks, y, 598);
    }
  }
}

TEST(KvAttention, FastIsNotExact) {
  const Inputs in(64, 70, 21);
  for (const KvMethod method : {KvMethod::Affine, KvMethod::Turbo}) {
    const auto run = [&](Compute compute) {
      return run_chunks(format_of(method, 4, 4, 64, compute), in, {70});
    };
    EXPECT_FALSE(same_bits(run(Compute::Fast), run(Compute::Exact)));
  }
}

TEST(KvAttention, CodesAreMlxsAffineCodes) {
  for (const int dim : {64, 80, 96, 128, 256}) {
    for (const int group : {32, 64, 128}) {
      for (const int bits : {2, 3, 4, 5, 6, 8}) {
        const KvFormat f = make_kv_format(
            {.n_kv_heads = kKvHeads,
             .head_dim = dim,
             .codec = {
                 .method = KvMethod::Affine,
                 .key_bits = static_cast<float>(bits),
                 .value_bits = static_cast<float>(bits),
                 .group_size = group}});
        SCOPED_TRACE(name(f));
        const Inputs in(dim, 67, 31);
        const Blocks blocks(f, 67);
        append(f, in, blocks, 0, 67);
        const cpu::KvLayout layout = cpu::layout_of("test", f);
        for (const bool is_key : {true, false}) {
          mx::array expected = mx::contiguous(
              is_key ? portable::cached_keys(in.k, f)
                     : portable::cached_values(in.v, f));
          mx::eval(expected);
          const cpu::KvSide& side = is_key ? layout.key : layout.value;
          int different = 0;
          for (int t = 0; t < 67; ++t) {
            for (int h = 0; h < kKvHeads; ++h) {
              const std::byte* block = cpu::address_of(blocks.span()[t / 64]) +
                  h * layout.head_bytes() + (is_key ? 0 : layout.key.bytes());
              for (int i = 0; i < dim; ++i) {
                // code * scale + bias in float32 rounds twice.
                const double x = held(side, is_key, block, t % 64, i);
                const double y =
                    io::floats(expected)[(t * kKvHeads + h) * dim + i];
                const double size = 2 * std::abs(x) + 8.0;
                different += !(std::abs(x - y) <= 2 * kUnit * size);
              }
            }
          }
          EXPECT_EQ(different, 0);
        }
      }
    }
  }
}

TEST(KvAttention, CodesAreTheNearestCentroidsOfTheRotatedVector) {
  for (const KvRotation rotation :
       {KvRotation::Hadamard, KvRotation::Orthogonal}) {
    for (const int dim : {64, 80, 96, 128, 256}) {
      for (const float bits : {1.f, 2.f, 2.5f, 3.f, 3.5f, 4.f, 5.f}) {
        const KvFormat f = make_kv_format(
            {.n_kv_heads = kKvHeads,
             .head_dim = dim,
             .codec = {
                 .method = KvMethod::Turbo,
                 .key_bits = bits,
                 .value_bits = bits,
                 .rotation = rotation}});
        const Inputs in(dim, 67, 41);
        const Blocks blocks(f, 67);
        append(f, in, blocks, 0, 67);
        const cpu::KvLayout layout = cpu::layout_of("test", f);
        for (const bool is_key : {true, false}) {
          const cpu::KvSide& side = is_key ? layout.key : layout.value;
          const mx::array rotated = rotate_vectors(
              is_key ? in.k : in.v,
              rotation,
              f.codec.seed + (is_key ? 0 : kKvValueSeedStep));
          int wrong = 0;
          for (int row = 0; row < 67 * kKvHeads; ++row) {
            const float* x = io::floats(rotated).data() + row * dim;
            double norm = 0.0;
            for (int i = 0; i < dim; ++i) {
              norm += double{x[i]} * x[i];
            }
            norm = std::sqrt(norm);
            const std::byte* block =
                cpu::address_of(blocks.span()[row / kKvHeads / 64]) +
                row % kKvHeads * layout.head_bytes() +
                (is_key ? 0 : layout.key.bytes());
            const int token = row / kKvHeads % 64;
            const double stored =
                testing::half_at(block + side.codes_bytes(), token, false);
            // f16 rounds to 2^-11.
            wrong += !(std::abs(stored - norm) <= 0x1.01p-11 * norm);
            for (int i = 0; i < dim; ++i) {
              const unsigned code = is_key
                  ? testing::key_code(side, block, token, i)
                  : testing::value_code(side, block, token, i);
              const cpu::CodeTable& table = side.table_of(i);
              const double z = x[i] * std::sqrt(dim) / norm;
              const double mine = std::abs(z - table.centroids[code]);
              for (int c = 0; c < 1 << table.bits; ++c) {
                // A tie may fall on either side.
                wrong += mine > std::abs(z - table.centroids[c]) + 1e-5;
              }
            }
          }
          EXPECT_EQ(wrong, 0) << name(f);
        }
      }
    }
  }
}

/** One format of every kind. */
std::vector<KvFormat> kinds() {
  std::vector<KvFormat> formats;
  for (const Compute compute : {Compute::Fast, Compute::Exact}) {
    formats.push_back(format_of(KvMethod::Affine, 4, 4, 64, compute));
    formats.push_back(format_of(KvMethod::Affine, 3, 8, 80, compute));
    formats.push_back(format_of(KvMethod::Affine, 0, 5, 128, compute));
    formats.push_back(format_of(KvMethod::Turbo, 4, 4, 64, compute));
    formats.push_back(format_of(KvMethod::Turbo, 2.5f, 1, 128, compute));
    formats.push_back(format_of(KvMethod::Turbo, 5, 0, 96, compute));
  }
  KvFormat windowed = format_of(KvMethod::Turbo, 3, 4, 64, Compute::Fast);
  windowed.window = 150;
  formats.push_back(windowed);
  return formats;
}

TEST(KvAttention, ChunksDoNotChangeABit) {
  for (const KvFormat& f : kinds()) {
    SCOPED_TRACE(name(f));
    const Inputs in(f.head_dim, 330, 5);
    testing::for_each_target([&] {
      const std::vector<float> whole = run_chunks(f, in, {330});
      EXPECT_TRUE(same_bits(whole, run_chunks(f, in, {1, 63, 193, 30, 43})));
      EXPECT_TRUE(
          same_bits(whole, run_chunks(f, in, std::vector<int>(330, 1))));
    });
  }
}

TEST(KvAttention, TilesOfAmxDoNotChangeABit) {
  if (simd_targets().front() != "AMX") {
    GTEST_SKIP() << "this machine has no AMX";
  }
  for (const Compute compute : {Compute::Fast, Compute::Exact}) {
    for (const int dim : {64, 96, 128, 192, 256}) {
      for (KvFormat f : all_widths(dim, compute)) {
        for (const int group : {32, 64, 128}) {
          f.codec.group_size = group; // turbo has none
          f = make_kv_format(f);
          SCOPED_TRACE(name(f));
          const Inputs in(dim, 330, 5);
          std::vector<std::vector<float>> outs;
          for (const char* target : {"AMX", "AVX3_SPR"}) {
            force_simd_target(target);
            outs.push_back(run_chunks(f, in, {290, 7, 33}));
          }
          force_simd_target("");
          ASSERT_TRUE(same_bits(outs[0], outs[1]));
        }
      }
    }
  }
}

TEST(KvAttention, ThreadsDoNotChangeABit) {
  for (const KvFormat& f : kinds()) {
    const Inputs in(f.head_dim, 330, 9);
    std::vector<std::vector<float>> outs;
    for (const int n : {1, 2, 5}) {
      const testing::Threads threads(n);
      outs.push_back(run_chunks(f, in, {250, 79, 1}));
    }
    EXPECT_TRUE(same_bits(outs[0], outs[1])) << name(f);
    EXPECT_TRUE(same_bits(outs[0], outs[2])) << name(f);
  }
}

TEST(KvAttention, NeighboursDoNotChangeABit) {
  // Per sequence: tokens already there, rows in the batch.
  const std::vector<std::pair<int, int>> sequences{
      {300, 1}, {0, 70}, {63, 1}, {5, 0}, {64, 2}, {1, 130}, {511, 1}, {9, 1}};
  for (const KvFormat& f : kinds()) {
    std::vector<Blocks> blocks;
    std::vector<mx::array> q, k, v;
    std::vector<Segment> segments;
    std::vector<float> alone;
    int row = 0;
    blocks.reserve(sequences.size());
    for (const auto& [start, rows] : sequences) {
      const Inputs in(
          f.head_dim, start + rows, 20 + static_cast<unsigned>(row));
      const Blocks mine(f, start + rows);
      const Blocks& shared = blocks.emplace_back(f, start + rows);
      if (start > 0) {
        append(f, in, mine, 0, start);
        append(f, in, shared, 0, start);
      }
      segments.push_back(
          {.first_row = row,
           .rows = rows,
           .start = start,
           .blocks = shared.span()});
      row += rows;
      if (rows > 0) {
        const mx::array y = append(f, in, mine, start, rows);
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
        f,
        {.scale = scale_of(f)});
    EXPECT_TRUE(same_bits(io::floats(y), alone)) << name(f);
  }
}

TEST(KvAttention, RecycledBlocksDoNotShowThrough) {
  for (const KvFormat& f : kinds()) {
    const Inputs in(f.head_dim, 70, 31);
    EXPECT_TRUE(same_bits(
        run_chunks(f, in, {50, 20}, Blocks(f, 70, 0x00)),
        run_chunks(f, in, {50, 20}, Blocks(f, 70, 0xff))))
        << name(f);
  }
}

TEST(KvAttention, NaNReachesThoseWhoSeeItAndNoOther) {
  for (const KvFormat& f : kinds()) {
    SCOPED_TRACE(name(f));
    for (const bool in_keys : {true, false}) {
      Inputs in(f.head_dim, 100, 41);
      const std::vector<float> before = run_chunks(f, in, {100});
      mx::array& x = in_keys ? in.k : in.v;
      std::fill_n(
          io::mutable_floats(x).begin() + 80 * kKvHeads * f.head_dim,
          kKvHeads * f.head_dim,
          std::numeric_limits<float>::quiet_NaN());
      const std::vector<float> after = run_chunks(f, in, {100});
      const std::size_t unchanged = std::size_t{80} * kHeads * f.head_dim;
      EXPECT_TRUE(same_bits(
          std::span(before).first(unchanged),
          std::span(after).first(unchanged)));
      for (std::size_t i = unchanged; i < after.size(); ++i) {
        if (!std::isnan(after[i])) {
          FAIL() << "row " << i / kHeads / f.head_dim << " is finite";
        }
      }
    }
  }
}

TEST(KvAttention, ZeroVectorsStayZero) {
  for (const KvFormat& f : kinds()) {
    Inputs in(f.head_dim, 70, 51);
    std::fill_n(io::mutable_floats(in.v).begin(), in.v.size(), 0.0f);
    std::fill_n(io::mutable_floats(in.k).begin(), in.k.size(), 0.0f);
    for (const float y : run_chunks(f, in, {70})) {
      // Affine's least scale is 1e-7; up to 128 of it cancel in a chain of 64.
      ASSERT_NEAR(y, 0.0f, 1e-7 * 128 * 64 * 2 * kUnit) << name(f);
    }
  }
}

} // namespace
} // namespace optiq::kernels::kv_oracle
