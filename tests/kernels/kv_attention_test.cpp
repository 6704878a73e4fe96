#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "kernels/kv_block_reader.h"
#include "support/kernel_checks.h"

#include "optiq/kernels/kernels.h"
#include "optiq/kernels/portable.h"

namespace optiq::kernels {
namespace {

namespace mx = mlx::core;
using testing::held;
using testing::kUnit;
using testing::normal_array;
using testing::rows_of;
using testing::same_bits;

constexpr int kHeads = 6;
constexpr int kKvHeads = 2;
constexpr int kGroup = kHeads / kKvHeads;

KvFormat format_of(
    KvMethod method,
    float key_bits,
    float value_bits,
    int head_dim,
    Compute compute) {
  return make_kv_format(
      {.n_kv_heads = kKvHeads,
       .head_dim = head_dim,
       .method = method,
       .key_bits = key_bits,
       .value_bits = value_bits,
       .seed = 3,
       .compute = compute});
}

std::string name(const KvFormat& f) {
  return std::string(f.method == KvMethod::Affine ? "affine " : "turbo ") +
      std::to_string(f.key_bits) + "/" + std::to_string(f.value_bits) +
      " bits, head_dim " + std::to_string(f.head_dim) + ", group " +
      std::to_string(f.group_size) +
      (f.compute == Compute::Exact ? ", exact" : ", fast");
}

/** Every width of both methods, with keys and values of different widths. */
std::vector<KvFormat> all_widths(int head_dim, Compute compute) {
  std::vector<KvFormat> formats;
  const std::vector<float> affine{2, 3, 4, 5, 6, 8};
  const std::vector<float> turbo{1, 2, 2.5f, 3, 3.5f, 4, 5};
  for (const auto& [method, widths] :
       {std::pair{KvMethod::Affine, affine}, {KvMethod::Turbo, turbo}}) {
    for (std::size_t i = 0; i < widths.size(); ++i) {
      formats.push_back(format_of(
          method,
          widths[i],
          widths[(i + 1) % widths.size()],
          head_dim,
          compute));
    }
  }
  return formats;
}

/** Blocks of one sequence; 0xff is NaN in scales and norms. */
class Blocks {
 public:
  Blocks(const KvFormat& f, int tokens, unsigned char garbage = 0xff) {
    for (int at = 0; at < tokens; at += kKvBlockTokens) {
      memory_.emplace_back(f.block_bytes(), static_cast<std::byte>(garbage));
      pointers_.push_back(memory_.back().data());
    }
  }
  std::span<std::byte* const> span() const {
    return pointers_;
  }

 private:
  std::vector<std::vector<std::byte>> memory_;
  std::vector<std::byte*> pointers_;
};

struct Inputs {
  mx::array q;
  mx::array k;
  mx::array v;

  Inputs(int head_dim, int tokens, unsigned seed)
      : q(normal_array({tokens, kHeads, head_dim}, seed)),
        k(normal_array({tokens, kKvHeads, head_dim}, seed + 1)),
        v(normal_array({tokens, kKvHeads, head_dim}, seed + 2)) {}
};

float scale_of(const KvFormat& f) {
  return 1.0f / std::sqrt(static_cast<float>(f.head_dim));
}

mx::array append(
    const KvFormat& f,
    const Inputs& in,
    const Blocks& blocks,
    int start,
    int rows) {
  const std::vector<AttentionSegment> segments{
      {.first_row = 0, .rows = rows, .start = start, .blocks = blocks.span()}};
  return append_and_attend(
      rows_of(in.q, start, rows),
      rows_of(in.k, start, rows),
      rows_of(in.v, start, rows),
      segments,
      f,
      scale_of(f));
}

std::vector<float> run_chunks(
    const KvFormat& f,
    const Inputs& in,
    const std::vector<int>& chunks,
    const Blocks& blocks) {
  std::vector<float> out;
  int start = 0;
  for (const int rows : chunks) {
    const mx::array y = append(f, in, blocks, start, rows);
    out.insert(out.end(), io::floats(y).begin(), io::floats(y).end());
    start += rows;
  }
  return out;
}

std::vector<float> run_chunks(
    const KvFormat& f,
    const Inputs& in,
    const std::vector<int>& chunks) {
  return run_chunks(f, in, chunks, Blocks(f, in.q.shape(0)));
}

/** Row i is what the rotation makes of channel i; the identity without one. */
std::vector<double>
rotation_of(const KvFormat& f, const cpu::KvSide& side, std::uint64_t seed) {
  const int dim = f.head_dim;
  mx::array m = mx::contiguous(mx::eye(dim));
  mx::eval(m);
  if (side.code == cpu::KvCode::Turbo) {
    m = rotate_vectors(m, f.rotation, seed);
  }
  return {io::floats(m).begin(), io::floats(m).end()};
}

/**
 * Attention in double over what the blocks hold, one query at a time, with a
 * bound of the error of the kernels. Where both compute modes differ:
 *   fast   a query's digit is off by half a step (largest of 64 / 127), a
 *          centroid's byte by half a step of its table, a weight's digit
 *          p * scale by half a step (largest of the block / 127)
 *   exact  a product is a chain of D float32 operations
 */
class Oracle {
 public:
  Oracle(const KvFormat& format, const Blocks& blocks, int window = 0)
      : f_(format),
        blocks_(blocks),
        window_(window),
        layout_(layout_of(format)),
        key_rotation_(rotation_of(format, layout_.key, format.seed)),
        value_rotation_(rotation_of(
            format,
            layout_.value,
            format.seed + kKvValueSeedStep)) {}

  /** What a row's head should be, with bounds. */
  void attend(const float* q, int t, int kv_head) {
    const int dim = f_.head_dim;
    const int first = window_ == 0 ? 0 : std::max(0, t - window_ + 1);
    rotate_query(q);
    std::vector<double> p(t + 1);
    double score_error = 0.0;
    double largest = -INFINITY;
    for (int s = first; s <= t; ++s) {
      p[s] = score(s, kv_head, score_error);
      largest = std::max(largest, p[s]);
    }
    double sum = 0.0;
    for (int s = first; s <= t; ++s) {
      p[s] = std::exp(p[s] - largest);
      sum += p[s];
    }
    for (double& x : p) {
      x /= sum;
    }
    const double relative =
        std::expm1(2 * score_error) + (t + 3 * (t / 64 + 1) + 16) * kUnit;
    std::vector<double> out(dim);
    std::vector<double> error(dim);
    for (int i = 0; i < dim; ++i) {
      double size = 0.0;
      for (int s = first; s <= t; ++s) {
        const double v = value(s, kv_head, i);
        out[i] += p[s] * v;
        size += p[s] * (std::abs(v) + offset(s, kv_head, i));
      }
      error[i] = relative * size + digit_error(p, first, kv_head, i);
    }
    turn_back(out, error);
  }

  std::vector<double> y;
  std::vector<double> bound;

 private:
  const std::byte* keys(int token, int kv_head) const {
    return blocks_.span()[token / 64] + kv_head * layout_.head_bytes();
  }
  const std::byte* values(int token, int kv_head) const {
    return keys(token, kv_head) + layout_.key.bytes();
  }
  double value(int token, int kv_head, int i) const {
    return held(layout_.value, false, values(token, kv_head), token % 64, i);
  }
  bool fast(const cpu::KvSide& side) const {
    return side.packed() && f_.compute == Compute::Fast;
  }
  /** Half a step of the bytes of centroids, in values. */
  static double byte_error(
      const cpu::KvSide& side,
      const std::byte* block,
      int token,
      int i) {
    if (side.code != cpu::KvCode::Turbo) {
      return 0.0;
    }
    const double norm =
        testing::half_at(block + side.codes_bytes(), token % 64, false);
    return side.table_of(i).step / 2 * norm /
        std::sqrt(static_cast<double>(side.head_dim));
  }
  /** |bias| of an affine group: it cancels against code * scale. */
  static double
  bias_size(const cpu::KvSide& side, const std::byte* block, int token, int i) {
    return side.code != cpu::KvCode::Affine
        ? 0.0
        : std::abs(testing::half_at(
              block + side.codes_bytes(),
              i / side.group * 128 + 64 + token % 64,
              true));
  }
  double offset(int token, int kv_head, int i) const {
    return 2 * bias_size(layout_.value, values(token, kv_head), token, i);
  }

  void rotate_query(const float* q) {
    const int dim = f_.head_dim;
    q_.assign(dim, 0.0);
    q_size_.assign(dim, 0.0);
    for (int i = 0; i < dim; ++i) {
      for (int j = 0; j < dim; ++j) {
        const double term =
            double{q[i]} * scale_of(f_) * key_rotation_[i * dim + j];
        q_[j] += term;
        q_size_[j] += std::abs(term);
      }
    }
  }

  /** Adds to the largest error of a score seen so far. */
  double score(int s, int kv_head, double& worst) const {
    const int dim = f_.head_dim;
    const cpu::KvSide& side = layout_.key;
    const std::byte* block = keys(s, kv_head);
    double sum = 0.0;
    double error = 0.0;
    for (int i = 0; i < dim; ++i) {
      const double k = held(side, true, block, s % 64, i);
      const double size = std::abs(k) + 2 * bias_size(side, block, s, i);
      sum += q_[i] * k;
      error += 2 * (dim + 8) * kUnit * q_size_[i] * size;
      if (fast(side)) {
        const double bytes = byte_error(side, block, s, i);
        // The kernels' units may be smaller: a larger one only widens.
        const int unit = i / 64 * 64;
        double most = 0.0;
        for (int j = unit; j < std::min(dim, unit + 64); ++j) {
          most = std::max(most, std::abs(q_[j]));
        }
        const double digit = most / 127 / 2;
        error += digit * (std::abs(k) + bytes) + std::abs(q_[i]) * bytes;
      }
    }
    worst = std::max(worst, error);
    return sum;
  }

  /** Of the weights' digits and the values' bytes, for one channel. */
  double digit_error(
      const std::vector<double>& p,
      int first,
      int kv_head,
      int i) const {
    const cpu::KvSide& side = layout_.value;
    if (!fast(side)) {
      return 0.0;
    }
    const int tokens = static_cast<int>(p.size());
    double error = 0.0;
    // The digit of a weight is off by half a step at most; its code counts from
    // the middle of the range.
    for (int at = first / 64 * 64; at < tokens; at += 64) {
      double most = 0.0; // p * scale
      double sum = 0.0; // of what a digit multiplies
      for (int s = std::max(first, at); s < std::min(tokens, at + 64); ++s) {
        const std::byte* block = values(s, kv_head);
        const std::byte* params = block + side.codes_bytes();
        const double bytes = byte_error(side, block, s, i);
        if (side.code == cpu::KvCode::Affine) {
          const double scale =
              testing::half_at(params, i / side.group * 128 + s % 64, true);
          most = std::max(most, p[s] * std::abs(scale));
          const int middle = 1 << (side.bits - 1);
          const auto code =
              static_cast<int>(testing::value_code(side, block, s % 64, i));
          sum += std::abs(code - middle);
        } else {
          most = std::max(most, p[s] * testing::half_at(params, s % 64, false));
          sum += side.table_of(i).step * 128 / std::sqrt(f_.head_dim);
        }
        error += p[s] * bytes;
      }
      error += 1.01 * most / 127 / 2 * sum;
    }
    return error;
  }

  void turn_back(
      const std::vector<double>& out,
      const std::vector<double>& error) {
    const int dim = f_.head_dim;
    for (int i = 0; i < dim; ++i) {
      double x = 0.0;
      double e = 0.0;
      for (int j = 0; j < dim; ++j) {
        const double r = value_rotation_[i * dim + j];
        x += r * out[j];
        e +=
            std::abs(r) * (error[j] + 2 * (dim + 8) * kUnit * std::abs(out[j]));
      }
      y.push_back(x);
      bound.push_back(e);
    }
  }

  const KvFormat& f_;
  const Blocks& blocks_;
  int window_;
  cpu::KvLayout layout_;
  std::vector<double> key_rotation_;
  std::vector<double> value_rotation_;
  std::vector<double> q_;
  std::vector<double> q_size_;
};

/** The rows from `from` on of y against the oracle; returns the mean of error
 * over bound. */
double expect_attention(
    const KvFormat& f,
    const Inputs& in,
    const Blocks& blocks,
    std::span<const float> y,
    int from) {
  Oracle oracle(f, blocks, f.window);
  const int dim = f.head_dim;
  const int tokens = in.q.shape(0);
  for (int t = from; t < tokens; ++t) {
    for (int h = 0; h < kHeads; ++h) {
      oracle.attend(
          io::floats(in.q).data() + (t * kHeads + h) * dim, t, h / kGroup);
    }
  }
  const std::size_t skip = static_cast<std::size_t>(from) * kHeads * dim;
  double used = 0.0;
  for (std::size_t i = 0; i < oracle.y.size(); ++i) {
    const double error = std::abs(y[skip + i] - oracle.y[i]);
    used += error / oracle.bound[i];
    // Written so that NaN fails.
    if (!(error <= oracle.bound[i])) {
      ADD_FAILURE() << "element " << i << ": " << y[skip + i] << " against "
                    << oracle.y[i] << ", bound " << oracle.bound[i];
      break;
    }
  }
  return used / static_cast<double>(oracle.y.size());
}

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
             .method = KvMethod::Affine,
             .key_bits = 4,
             .value_bits = 3,
             .group_size = group});
      }
    }
    for (const int dim : {64, 80}) {
      formats.push_back(
          {.head_dim = dim,
           .method = KvMethod::Turbo,
           .key_bits = 3.5f,
           .value_bits = 2,
           .rotation = KvRotation::Orthogonal});
    }
    // One side dense.
    formats.push_back(
        {.head_dim = 64, .method = KvMethod::Affine, .key_bits = 4});
    formats.push_back(
        {.head_dim = 64, .method = KvMethod::Turbo, .value_bits = 3});
    formats.push_back(
        {.dtype = mx::float32,
         .head_dim = 64,
         .method = KvMethod::Turbo,
         .key_bits = 3});
    for (KvFormat f : formats) {
      f.n_kv_heads = kKvHeads;
      f.compute = compute;
      f.window = 100;
      f = make_kv_format(f);
      SCOPED_TRACE(name(f));
      // Three spans and, at the end, a decode step over all of them.
      const Inputs in(f.head_dim, 600, 15);
      const Blocks blocks(f, 600);
      f.window = 0;
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
             .method = KvMethod::Affine,
             .key_bits = static_cast<float>(bits),
             .value_bits = static_cast<float>(bits),
             .group_size = group});
        SCOPED_TRACE(name(f));
        const Inputs in(dim, 67, 31);
        const Blocks blocks(f, 67);
        append(f, in, blocks, 0, 67);
        const cpu::KvLayout layout = layout_of(f);
        for (const bool is_key : {true, false}) {
          mx::array expected = mx::contiguous(
              is_key ? portable::cached_keys(in.k, f)
                     : portable::cached_values(in.v, f));
          mx::eval(expected);
          const cpu::KvSide& side = is_key ? layout.key : layout.value;
          int different = 0;
          for (int t = 0; t < 67; ++t) {
            for (int h = 0; h < kKvHeads; ++h) {
              const std::byte* block = blocks.span()[t / 64] +
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
             .method = KvMethod::Turbo,
             .key_bits = bits,
             .value_bits = bits,
             .rotation = rotation});
        const Inputs in(dim, 67, 41);
        const Blocks blocks(f, 67);
        append(f, in, blocks, 0, 67);
        const cpu::KvLayout layout = layout_of(f);
        for (const bool is_key : {true, false}) {
          const cpu::KvSide& side = is_key ? layout.key : layout.value;
          const mx::array rotated = rotate_vectors(
              is_key ? in.k : in.v,
              rotation,
              f.seed + (is_key ? 0 : kKvValueSeedStep));
          int wrong = 0;
          for (int row = 0; row < 67 * kKvHeads; ++row) {
            const float* x = io::floats(rotated).data() + row * dim;
            double norm = 0.0;
            for (int i = 0; i < dim; ++i) {
              norm += double{x[i]} * x[i];
            }
            norm = std::sqrt(norm);
            const std::byte* block = blocks.span()[row / kKvHeads / 64] +
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
    std::vector<AttentionSegment> segments;
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
        scale_of(f));
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
} // namespace optiq::kernels
