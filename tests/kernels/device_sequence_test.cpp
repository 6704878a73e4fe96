#include <algorithm>
#include <cmath>

#include "kernels/device_checks.h"
#include "support/expect_error.h"

namespace optiq::kernels {
namespace {

using test::expect_error;
using testing::rows_of;

constexpr int kHeads = 4;
constexpr int kKvHeads = 2;

/** The blocks of one sequence on a device. */
class Blocks {
 public:
  Blocks(Device& device, std::size_t n, std::size_t bytes)
      : store_(device.make_block_store(std::size_t{1} << 20)), bytes_(bytes) {
    for (std::size_t i = 0; i < n; ++i) {
      ids_.push_back(store_->take(bytes));
    }
  }
  std::span<const BlockId> ids() const {
    return ids_;
  }
  void give(std::size_t i) {
    store_->give(ids_[i], bytes_);
    ids_[i] = BlockId::None;
  }
  /** Block i becomes a copy of itself in a place of its own. */
  void replace_by_copy(std::size_t i) {
    const BlockId copy = store_->take(bytes_);
    store_->copy(copy, ids_[i], bytes_);
    give(i);
    ids_[i] = copy;
  }

 private:
  std::unique_ptr<BlockStore> store_;
  std::size_t bytes_;
  std::vector<BlockId> ids_;
};

struct Rows {
  mx::array q;
  mx::array k;
  mx::array v;

  Rows(int tokens, int head_dim, bool has_gate)
      : q(normal_array({tokens, kHeads * head_dim * (has_gate ? 2 : 1)}, 1)),
        k(normal_array({tokens, kKvHeads * head_dim}, 2)),
        v(normal_array({tokens, kKvHeads * head_dim}, 3)) {}
};

AttentionRule rule_of(int head_dim) {
  return {
      .n_heads = kHeads,
      .n_kv_heads = kKvHeads,
      .head_dim = head_dim,
      .norm_eps = 1e-6f,
      .scores = {.scale = 1.f / std::sqrt(static_cast<float>(head_dim))}};
}

KvFormat dense_format(int head_dim, int window = 0) {
  return {
      .dtype = mx::float32,
      .n_kv_heads = kKvHeads,
      .head_dim = head_dim,
      .window = window,
      .compute = Compute::Exact};
}

/** The rule with its norms on the device. */
AttentionRule uploaded(Device& device, AttentionRule rule) {
  for (auto* norm : {&rule.q_norm, &rule.k_norm, &rule.v_norm}) {
    if (*norm) {
      *norm = device.upload(**norm);
    }
  }
  return rule;
}

/** One sequence, its rows in these chunks. Blocks that no later row sees are
 * given back. */
std::vector<float> attend_in_chunks(
    Device& device,
    const AttentionRule& rule,
    const KvFormat& wanted,
    const std::vector<int>& chunks) {
  int tokens = 0;
  for (const int n : chunks) {
    tokens += n;
  }
  const Rows rows(tokens, rule.head_dim, rule.has_output_gate);
  const KvFormat format = device.kv_format(wanted);
  const AttentionRule on_device = uploaded(device, rule);
  Blocks blocks(
      device, static_cast<std::size_t>(tokens) / 64 + 1, format.block_bytes());
  std::vector<float> all;
  int at = 0;
  for (const int n : chunks) {
    for (int b = 0; format.window > 0 && (b + 1) * 64 <= at - format.window + 1;
         ++b) {
      if (blocks.ids()[b] != BlockId::None) {
        blocks.give(b);
      }
    }
    const std::vector<Segment> segments{
        {.rows = n, .start = at, .blocks = blocks.ids()}};
    const mx::array y = device.attend(
        device.upload(rows_of(rows.q, at, n)),
        device.upload(rows_of(rows.k, at, n)),
        device.upload(rows_of(rows.v, at, n)),
        on_device,
        segments,
        format);
    device.finish({&y, 1});
    const std::vector<float> values = on_host(device, y);
    all.insert(all.end(), values.begin(), values.end());
    at += n;
  }
  return all;
}

// A softmax over products of a head and a sum over the tokens.
double chain(int head_dim, int tokens) {
  return chain_error(head_dim + tokens);
}

const std::vector<int> kWhole{150};
const std::vector<int> kChunks{7, 57, 1, 64, 20, 1};

void expect_same_attention(
    const std::string& name,
    const AttentionRule& rule,
    const KvFormat& format,
    double bound) {
  for (const auto& [how, chunks] :
       {std::pair{", whole", kWhole}, std::pair{", in chunks", kChunks}}) {
    expect_same_on_both(
        {name + how,
         [&, &pieces = chunks](Device& device) {
           return attend_in_chunks(device, rule, format, pieces);
         },
         bound});
  }
}

TEST(DeviceAttention, WindowsAndSoftcaps) {
  for (const int window : {0, 1, 50, 64, 100}) {
    for (const float softcap : {0.f, 3.f}) {
      AttentionRule rule = rule_of(32);
      rule.scores.softcap = softcap;
      expect_same_attention(
          "window " + std::to_string(window) + ", cap " +
              std::to_string(softcap),
          rule,
          dense_format(32, window),
          chain(32, 150));
    }
  }
}

TEST(DeviceAttention, NormsGatesAndGrowingQueries) {
  AttentionRule rule = rule_of(32);
  rule.q_norm = normal_array({32}, 10);
  rule.k_norm = normal_array({32}, 11);
  rule.v_norm = normal_array({32}, 12);
  rule.has_output_gate = true;
  rule.query_growth = QueryGrowth{.beta = 0.3, .period = 40};
  expect_same_attention("heads", rule, dense_format(32), chain(32, 150));
  rule.q_norm = normal_array({kHeads * 32}, 13);
  rule.k_norm = normal_array({kKvHeads * 32}, 14);
  rule.v_norm.reset();
  expect_same_attention("rows", rule, dense_format(32), chain(32, 150));
}

TEST(DeviceAttention, EveryRope) {
  // The rounding of an angle turns its pair.
  const double bound = 150 * kUnit + chain(32, 150);
  for (const bool is_interleaved : {false, true}) {
    for (const int rotary_dim : {32, 20}) {
      for (const float scale : {1.f, 1.25f}) {
        for (const bool grows : {false, true}) {
          AttentionRule rule = rule_of(32);
          rule.rope = Rope{
              .inverse_frequencies = inverse_frequencies(1e4, rotary_dim),
              .is_interleaved = is_interleaved,
              .scale = scale};
          rule.rope->inverse_frequencies.back() = 0.f; // a pair that stays
          if (grows) {
            rule.rope->growth =
                Rope::Growth{.theta = 1e4, .factor = 4.0, .positions = 60};
          }
          expect_same_attention("rope", rule, dense_format(32), bound);
        }
      }
    }
  }
}

TEST(DeviceAttention, EveryKvFormat) {
  struct Packed {
    KvMethod method;
    std::vector<double> widths;
    std::vector<int> head_dims;
    std::vector<int> groups;
    std::vector<KvRotation> rotations;
  };
  const auto hadamard = KvRotation::Hadamard;
  const std::vector<Packed> all{
      {KvMethod::Affine, {2, 3, 4, 5, 6, 8}, {32}, {32, 64}, {hadamard}},
      {KvMethod::Affine, {4}, {80, 96, 112}, {32, 64, 128}, {hadamard}},
      {KvMethod::Turbo, {1, 2, 3, 4, 5}, {16, 48}, {64}, {hadamard}},
      {KvMethod::Turbo,
       {2.5, 3.5},
       {64, 80},
       {64},
       {hadamard, KvRotation::Orthogonal}}};
  for (const Packed& packed : all) {
    for (std::size_t i = 0; i < packed.widths.size(); ++i) {
      for (const int head_dim : packed.head_dims) {
        for (const int group : packed.groups) {
          for (const KvRotation rotation : packed.rotations) {
            KvFormat format = dense_format(head_dim, 70);
            format.codec.method = packed.method;
            format.codec.key_bits = packed.widths[i];
            // Of another width, and once of none.
            format.codec.value_bits =
                i + 1 < packed.widths.size() ? packed.widths[i + 1] : 0;
            format.codec.group_size = group;
            format.codec.rotation = rotation;
            expect_same_on_both(
                {std::to_string(format.codec.key_bits) + " bits, heads of " +
                     std::to_string(head_dim) + ", groups of " +
                     std::to_string(group),
                 [&](Device& device) {
                   return attend_in_chunks(
                       device, rule_of(head_dim), format, {61, 9, 1});
                 },
                 chain(2 * head_dim, 70)});
          }
        }
      }
    }
  }
  KvFormat half = dense_format(32);
  half.dtype = mx::bfloat16;
  expect_same_attention("bfloat16", rule_of(32), half, chain(32, 150));
}

TEST(DeviceAttention, ABatchIsItsSequences) {
  const AttentionRule rule = rule_of(32);
  const Rows rows(120, 32, false);
  const auto run = [&](Device& device) {
    const KvFormat format = device.kv_format(dense_format(32));
    std::vector<Blocks> blocks;
    for (int i = 0; i < 3; ++i) {
      blocks.emplace_back(device, 2, format.block_bytes());
    }
    std::vector<float> all;
    int row = 0;
    int start = 0;
    for (const std::vector<int>& lengths :
         {std::vector{70, 3, 0}, std::vector{1, 30, 13}}) {
      std::vector<Segment> segments;
      int first = 0;
      for (int i = 0; i < 3; ++i) {
        segments.push_back(
            {.first_row = first,
             .rows = lengths[i],
             .start = start == 0 ? 0 : std::vector{70, 3, 0}[i],
             .blocks = blocks[i].ids()});
        first += lengths[i];
      }
      const mx::array y = device.attend(
          device.upload(rows_of(rows.q, row, first)),
          device.upload(rows_of(rows.k, row, first)),
          device.upload(rows_of(rows.v, row, first)),
          rule,
          segments,
          format);
      const std::vector<float> values = on_host(device, y);
      all.insert(all.end(), values.begin(), values.end());
      row += first;
      start = 1;
      blocks[0].replace_by_copy(0);
    }
    // Another layer's K/V: no rows of its own.
    const std::vector<Segment> again{
        {.rows = 2, .start = 1, .blocks = blocks[1].ids()}};
    const mx::array none = device.upload(rows_of(rows.k, 0, 0));
    const std::vector<float> values = on_host(
        device,
        device.attend(
            device.upload(rows_of(rows.q, 0, 2)),
            none,
            none,
            rule,
            again,
            format));
    all.insert(all.end(), values.begin(), values.end());
    return all;
  };
  expect_same_on_both({"batch", run, chain(32, 120)});
}

TEST(DeviceAttention, BlocksTakeWhatTheirArraysTake) {
  KvFormat format = dense_format(64);
  Device& device = mlx_device();
  EXPECT_EQ(device.kv_format(format).block_bytes(), 2u * 64 * 2 * 64 * 4);
  format.codec.method = KvMethod::Affine;
  format.codec.key_bits = 4;
  format.codec.value_bits = 3;
  // 64 tokens of 2 heads: words, then a bf16 scale and bias per group of 64.
  EXPECT_EQ(
      device.kv_format(format).block_bytes(),
      128u * (64 * 4 / 8 + 4 + 64 * 3 / 8 + 4));
  format.codec.method = KvMethod::Turbo;
  format.codec.key_bits = 2.5;
  EXPECT_EQ(
      device.kv_format(format).block_bytes(),
      128u * (64 * 5 / 16 + 2 + 64 * 3 / 8 + 2));
}

TEST(DeviceAttention, MlxNamesWhatIsMissing) {
  Device& device = mlx_device();
  const AttentionRule rule = rule_of(32);
  const Rows rows(70, 32, false);
  const KvFormat format = device.kv_format(dense_format(32));
  Blocks blocks(device, 2, format.block_bytes());
  const auto attend = [&](const Segment& segment, const KvFormat& with) {
    device.attend(rows.q, rows.k, rows.v, rule, {&segment, 1}, with);
  };
  const Segment all{.rows = 70, .blocks = blocks.ids()};
  expect_error(ErrorKind::InvalidInput, {}, [&] {
    attend({.rows = 70, .blocks = blocks.ids().first(1)}, format);
  });
  expect_error(ErrorKind::InvalidInput, {}, [&] {
    attend({.rows = 60, .blocks = blocks.ids()}, format);
  });
  expect_error(ErrorKind::InvalidInput, {}, [&] {
    attend(all, cpu_device().kv_format(dense_format(32)));
  });
  blocks.give(1);
  expect_error(ErrorKind::InvalidInput, {}, [&] { attend(all, format); });
}

TEST(DeviceDeltaNet, WholeAndInChunks) {
  const DeltaNetShape shape{
      .n_key_heads = 2, .n_value_heads = 4, .key_dim = 16, .value_dim = 24};
  const int tokens = 40;
  const auto run = [&](Device& device, const std::vector<int>& chunks) {
    const auto given = [&](const mx::Shape& dims, unsigned seed) {
      return device.upload(normal_array(dims, seed));
    };
    const DeltaNetWeights weights{
        .conv = given({shape.qkv_dim(), shape.conv_kernel}, 1),
        .a_log = given({4}, 2),
        .dt_bias = given({4}, 3),
        .norm = given({24}, 4)};
    const DeltaNetInput input{
        given({tokens, shape.qkv_dim()}, 5),
        given({tokens, 4 * 24}, 6),
        given({tokens, 4}, 7),
        given({tokens, 4}, 8)};
    Blocks state(device, 1, 4 * (shape.conv_floats() + shape.state_floats()));
    std::vector<float> all;
    int at = 0;
    for (const int n : chunks) {
      const auto part = [&](const mx::array& x) {
        return device.row_range(x, at, n);
      };
      const std::vector<Segment> segments{
          {.rows = n, .start = at, .blocks = state.ids()}};
      const std::vector<float> values = on_host(
          device,
          device.gated_delta_net(
              {part(input.qkv), part(input.z), part(input.b), part(input.a)},
              weights,
              shape,
              segments));
      all.insert(all.end(), values.begin(), values.end());
      at += n;
      state.replace_by_copy(0);
    }
    return all;
  };
  for (const std::vector<int>& chunks :
       {std::vector{40}, std::vector{1, 2, 30, 7}}) {
    // Every token rounds the state as a chain over a head's channels.
    expect_same_on_both(
        {"delta net",
         [&](Device& device) { return run(device, chunks); },
         chain_error(tokens * shape.key_dim)});
  }
}

} // namespace
} // namespace optiq::kernels
