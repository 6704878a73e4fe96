#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <set>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/sequence_runner.h"
#include "support/tiny_model.h"

#include "optiq/base/error.h"
#include "optiq/base/thread_pool.h"
#include "optiq/io/safetensors.h"
#include "optiq/kernels/quantize.h"
#include "optiq/models/checkpoint.h"

namespace optiq {
namespace {

namespace mx = mlx::core;

using kernels::Compute;

const std::shared_ptr<const models::Model>& tiny() {
  static const auto model = testing::load_tiny_model();
  return model;
}

/** The tiny model with every module quantized, widths in turn. */
const std::shared_ptr<const models::Model>& tiny_quantized() {
  static const auto model = [] {
    const auto directory = io::ModelDirectory::open(testing::tiny_model_path());
    const auto checkpoint = models::open_checkpoint(directory);
    models::MatricesByName matrices;
    constexpr int kBits[] = {4, 8, 3, 2, 5, 6};
    int i = 0;
    for (const auto& module : tiny()->modules()) {
      const int bits = kBits[i++ % 6];
      const auto q = kernels::quantize_affine(
          checkpoint.at(module.name + ".weight").load(), bits, 64);
      matrices.emplace(
          module.name,
          kernels::cpu_device().quantized(
              q.weight, q.scales, q.biases, bits, 64));
    }
    return std::shared_ptr<const models::Model>(
        tiny()->with_matrices(matrices));
  }();
  return model;
}

std::vector<float> logits_in_chunks(
    const std::shared_ptr<const models::Model>& model,
    std::span<const std::int32_t> tokens,
    int chunk,
    Compute compute) {
  testing::SequenceRunner runner({model, compute}, {.prefill_chunk = chunk});
  const auto sequence = runner.new_sequence();
  const mx::array logits =
      runner.extend(*sequence, tokens, static_cast<int>(tokens.size()));
  const auto view = io::floats(logits);
  return {view.begin(), view.end()};
}

bool bit_equal(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() &&
      std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

/** Mean over rows of KL(softmax(p) || softmax(q)), in double. */
double mean_kl(std::span<const float> p, std::span<const float> q, int vocab) {
  const auto log_sum = [&](std::span<const float> row) {
    const double top = *std::max_element(row.begin(), row.end());
    double sum = 0;
    for (const float x : row) {
      sum += std::exp(x - top);
    }
    return top + std::log(sum);
  };
  double total = 0;
  const std::size_t rows = p.size() / vocab;
  for (std::size_t r = 0; r < rows; ++r) {
    const auto a = p.subspan(r * vocab, vocab);
    const auto b = q.subspan(r * vocab, vocab);
    const double za = log_sum(a);
    const double zb = log_sum(b);
    for (int i = 0; i < vocab; ++i) {
      total += std::exp(a[i] - za) * ((a[i] - za) - (b[i] - zb));
    }
  }
  return total / static_cast<double>(rows);
}

// golden.safetensors: float32 logits of PyTorch with the same bf16 weights.
TEST(Qwen35, MatchesTheGoldenLogits) {
  const auto golden = io::SafetensorsFile::open(
      testing::tiny_model_path() / "golden.safetensors");
  std::vector<std::int32_t> tokens;
  std::vector<float> expected;
  for (const auto& info : golden.tensors()) {
    const mx::array x = golden.load(info);
    if (info.name == "input_ids") {
      tokens.assign(x.data<std::int32_t>(), x.data<std::int32_t>() + x.size());
    } else {
      expected.assign(x.data<float>(), x.data<float>() + x.size());
    }
  }
  ASSERT_EQ(tokens.size(), 62u);
  for (const Compute compute : {Compute::Exact, Compute::Fast}) {
    const auto logits = logits_in_chunks(tiny(), tokens, 512, compute);
    ASSERT_EQ(logits.size(), expected.size());
    const double kl = mean_kl(expected, logits, 4096);
    // Fast keeps K/V in bf16; the bound is for the float32 forward.
    EXPECT_LE(kl, compute == Compute::Exact ? 1e-6 : 1e-4);
    RecordProperty(
        compute == Compute::Exact ? "exact" : "fast", std::to_string(kl));
    std::printf("mean KL to golden: %.3g\n", kl);
  }
}

struct Case {
  const char* name;
  bool quantized;
  Compute compute;
};

class RowIndependence : public ::testing::TestWithParam<Case> {
 protected:
  const std::shared_ptr<const models::Model>& model() const {
    return GetParam().quantized ? tiny_quantized() : tiny();
  }
};

TEST_P(RowIndependence, ChunkingDoesNotChangeABit) {
  const auto tokens = testing::arithmetic_tokens(600);
  const auto whole = logits_in_chunks(model(), tokens, 600, GetParam().compute);
  for (const int chunk : {1, 63, 64, 65, 512}) {
    EXPECT_TRUE(bit_equal(
        whole, logits_in_chunks(model(), tokens, chunk, GetParam().compute)))
        << "chunks of " << chunk;
  }
}

TEST_P(RowIndependence, ThreadsDoNotChangeABit) {
  const auto tokens = testing::arithmetic_tokens(300);
  const int before = ThreadPool::shared().size();
  ThreadPool::shared().resize(1);
  const auto one = logits_in_chunks(model(), tokens, 128, GetParam().compute);
  ThreadPool::shared().resize(2);
  const auto two = logits_in_chunks(model(), tokens, 128, GetParam().compute);
  ThreadPool::shared().resize(before);
  EXPECT_TRUE(bit_equal(one, two));
}

TEST_P(RowIndependence, NeighboursDoNotChangeABit) {
  const auto tokens = testing::arithmetic_tokens(700);
  const std::span<const std::int32_t> all(tokens);
  // Eight prompts of different lengths, then 20 decode steps in one batch.
  constexpr int kPrompts[] = {1, 7, 64, 65, 100, 128, 190, 33};
  testing::SequenceRunner runner({model(), GetParam().compute}, {});
  std::vector<std::unique_ptr<cache::Sequence>> sequences;
  std::vector<std::vector<float>> batched(8);
  const auto step = [&](const auto& tokens_of) {
    std::vector<testing::SequenceRunner::Work> work;
    for (int i = 0; i < 8; ++i) {
      work.push_back({sequences[i].get(), tokens_of(i)});
    }
    const mx::array logits = runner.step(work);
    for (int i = 0; i < 8; ++i) {
      const auto row = io::floats(logits).subspan(i * 4096, 4096);
      batched[i].insert(batched[i].end(), row.begin(), row.end());
    }
  };
  for (int i = 0; i < 8; ++i) {
    sequences.push_back(runner.new_sequence());
  }
  step([&](int i) { return all.subspan(50 * i, kPrompts[i]); });
  for (int n = 0; n < 20; ++n) {
    step([&](int i) { return all.subspan(50 * i + kPrompts[i] + n, 1); });
  }
  for (int i = 0; i < 8; ++i) {
    const int n = kPrompts[i] + 20;
    const auto alone = logits_in_chunks(
        model(), all.subspan(50 * i, n), 512, GetParam().compute);
    const auto tail =
        std::span<const float>(alone).last(std::size_t{21} * 4096);
    EXPECT_TRUE(bit_equal(tail, batched[i])) << "prompt of " << kPrompts[i];
  }
}

INSTANTIATE_TEST_SUITE_P(
    Modes,
    RowIndependence,
    ::testing::Values(
        Case{"DenseExact", false, Compute::Exact},
        Case{"DenseFast", false, Compute::Fast},
        Case{"MixedExact", true, Compute::Exact},
        Case{"MixedFast", true, Compute::Fast}),
    [](const auto& info) { return info.param.name; });

TEST(Qwen35, RefusesTokensOutsideTheVocabulary) {
  const std::int32_t bad[] = {4096};
  EXPECT_THROW(tiny()->embed(bad), Error);
  const std::int32_t negative[] = {-1};
  EXPECT_THROW(tiny()->embed(negative), Error);
}

TEST(Qwen35, ExchangesMatricesByName) {
  const auto modules = tiny()->modules();
  EXPECT_EQ(modules.size(), 63u); // 6 x 8 + 2 x 7 + embeddings
  const auto quantized = tiny_quantized()->modules();
  const std::set<std::size_t> exchanged{0, 5, 62};
  models::MatricesByName matrices;
  for (const std::size_t i : exchanged) {
    matrices.emplace(modules[i].name, quantized[i].matrix);
  }
  const auto changed = tiny()->with_matrices(matrices)->modules();
  for (std::size_t i = 0; i < modules.size(); ++i) {
    EXPECT_EQ(changed[i].matrix.is_quantized(), exchanged.contains(i)) << i;
  }
  matrices.emplace("nobody", modules[1].matrix);
  test::expect_error(ErrorKind::NotFound, {"'nobody'"}, [&] {
    tiny()->with_matrices(matrices);
  });
  test::expect_error(ErrorKind::InvalidInput, {modules[0].name}, [&] {
    tiny()->with_matrices({{modules[0].name, modules[1].matrix}});
  });
}

} // namespace
} // namespace optiq
