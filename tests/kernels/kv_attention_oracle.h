#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "kernels/kv_block_reader.h"
#include "support/cpu_operations.h"
#include "support/kernel_checks.h"

#include "optiq/kernels/cpu/block_memory.h"

/** Attention over packed codes in double precision, with the error that the
 * kernels may make. */
namespace optiq::kernels::kv_oracle {

namespace mx = mlx::core;
using testing::held;
using testing::kUnit;
using testing::normal_array;
using testing::rows_of;
using testing::same_bits;

constexpr int kHeads = 6;
constexpr int kKvHeads = 2;
constexpr int kGroup = kHeads / kKvHeads;
constexpr double kHalfUnit = 0x1p-9; // unit roundoff of bfloat16

inline KvFormat format_of(
    KvMethod method,
    float key_bits,
    float value_bits,
    int head_dim,
    Compute compute) {
  return make_kv_format(
      {.n_kv_heads = kKvHeads,
       .head_dim = head_dim,
       .codec =
           {.method = method,
            .key_bits = key_bits,
            .value_bits = value_bits,
            .seed = 3},
       .compute = compute});
}

inline std::string name(const KvFormat& f) {
  return std::string(
             f.codec.method == KvMethod::Affine ? "affine " : "turbo ") +
      std::to_string(f.codec.key_bits) + "/" +
      std::to_string(f.codec.value_bits) + " bits, head_dim " +
      std::to_string(f.head_dim) + ", group " +
      std::to_string(f.codec.group_size) +
      (f.compute == Compute::Exact ? ", exact" : ", fast");
}

/** Every width of both methods, with keys and values of different widths. */
inline std::vector<KvFormat> all_widths(int head_dim, Compute compute) {
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
      ids_.push_back(cpu::id_of(memory_.back().data()));
    }
  }
  std::span<const BlockId> span() const {
    return ids_;
  }

 private:
  std::vector<std::vector<std::byte>> memory_;
  std::vector<BlockId> ids_;
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

inline float scale_of(const KvFormat& f) {
  return 1.0f / std::sqrt(static_cast<float>(f.head_dim));
}

inline mx::array append(
    const KvFormat& f,
    const Inputs& in,
    const Blocks& blocks,
    int start,
    int rows) {
  const std::vector<Segment> segments{
      {.first_row = 0, .rows = rows, .start = start, .blocks = blocks.span()}};
  return append_and_attend(
      rows_of(in.q, start, rows),
      rows_of(in.k, start, rows),
      rows_of(in.v, start, rows),
      segments,
      f,
      {.scale = scale_of(f)});
}

inline std::vector<float> run_chunks(
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

inline std::vector<float> run_chunks(
    const KvFormat& f,
    const Inputs& in,
    const std::vector<int>& chunks) {
  return run_chunks(f, in, chunks, Blocks(f, in.q.shape(0)));
}

/** Row i is what the rotation makes of channel i; the identity without one. */
inline std::vector<double>
rotation_of(const KvFormat& f, const cpu::KvSide& side, std::uint64_t seed) {
  const int dim = f.head_dim;
  mx::array m = mx::contiguous(mx::eye(dim));
  mx::eval(m);
  if (side.code == cpu::KvCode::Turbo) {
    m = rotate_vectors(m, f.codec.rotation, seed);
  }
  return {io::floats(m).begin(), io::floats(m).end()};
}

/**
 * Attention in double over what the blocks hold, one query at a time, with a
 * bound of the error of the kernels. A query's digits are off by half a step
 * (largest of 64 / 127, exact 2^-16 of it), a weight's p * scale likewise
 * (largest of the block), a centroid's bytes by half a step of its table (exact
 * 2^-16 of it). In exact, float32 adds two roundings to what becomes digits,
 * and some products of turbo's digits are left out. Where fast's other side is
 * bfloat16, queries and weights are off by 2^-9 of themselves, weights once in
 * the numerator and once in the denominator.
 */
class Oracle {
 public:
  Oracle(const KvFormat& format, const Blocks& blocks, int window = 0)
      : f_(format),
        blocks_(blocks),
        window_(window),
        layout_(cpu::layout_of("Oracle", format)),
        key_rotation_(rotation_of(format, layout_.key, format.codec.seed)),
        value_rotation_(rotation_of(
            format,
            layout_.value,
            format.codec.seed + kKvValueSeedStep)) {}

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
    const double rounded = layout_.dots(layout_.value) ? kHalfUnit : 0.0;
    const double relative =
        std::exp(2 * score_error) * (1 + rounded) / (1 - rounded) - 1 +
        (t + 3 * (t / 64 + 1) + 16) * kUnit;
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
    return cpu::address_of(blocks_.span()[token / 64]) +
        kv_head * layout_.head_bytes();
  }
  const std::byte* values(int token, int kv_head) const {
    return keys(token, kv_head) + layout_.key.bytes();
  }
  double value(int token, int kv_head, int i) const {
    return held(layout_.value, false, values(token, kv_head), token % 64, i);
  }
  /** How far a value is off as digits, of the largest that shares its scale. */
  double digit_step() const {
    return (layout_.exact ? 1.5 / 65536 : 0.5) / 127;
  }
  /** What turbo's products of digits in places 3 and 4 may be, of the largest
   * that shares a scale and a step of the table: 2 * 2^14 / 256^3 + 2^14 /
   * 256^4 of a first digit. */
  double left_out(const cpu::KvSide& side) const {
    const bool has = layout_.exact && side.code == cpu::KvCode::Turbo;
    return has ? 1.01 * 0x1p-9 / 127 : 0.0;
  }
  /** Half a step of the bytes of centroids, in values. */
  double byte_error(
      const cpu::KvSide& side,
      const std::byte* block,
      int token,
      int i) const {
    if (side.code != cpu::KvCode::Turbo) {
      return 0.0;
    }
    const double norm =
        testing::half_at(block + side.codes_bytes(), token % 64, false);
    return side.table_of(i).step / (layout_.exact ? 2 * 65536 : 2) * norm /
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
      if (layout_.dots(side)) {
        error += kHalfUnit * std::abs(q_[i] * k);
      }
      if (side.packed()) {
        const double bytes = byte_error(side, block, s, i);
        // The kernels' units may be smaller: a larger one only widens.
        const int unit = i / 64 * 64;
        double most = 0.0;
        for (int j = unit; j < std::min(dim, unit + 64); ++j) {
          most = std::max(most, std::abs(q_[j]));
        }
        // A step of the table is 2^17 exact errors of a byte.
        error += most * digit_step() * (std::abs(k) + bytes) +
            std::abs(q_[i]) * bytes + most * left_out(side) * 0x1p17 * bytes;
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
    if (!side.packed()) {
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
      // A step of the table is 1/128 of what a digit multiplies.
      error += 1.01 * most * (digit_step() + left_out(side) / 128) * sum;
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
inline double expect_attention(
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

} // namespace optiq::kernels::kv_oracle
