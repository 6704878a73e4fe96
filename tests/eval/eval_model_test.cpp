#include <algorithm>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "support/sequence_runner.h"
#include "support/tiny_model.h"

#include "optiq/base/error.h"
#include "optiq/eval/exact_match.h"
#include "optiq/eval/kl.h"
#include "optiq/eval/numbers.h"
#include "optiq/eval/perplexity.h"
#include "optiq/generate/defaults.h"
#include "optiq/kernels/quantize.h"
#include "optiq/models/checkpoint.h"

namespace optiq::eval {
namespace {

namespace mx = mlx::core;

using kernels::Compute;
using ModelPtr = std::shared_ptr<const models::Model>;

const ModelPtr& tiny() {
  static const ModelPtr model = testing::load_tiny_model();
  return model;
}

/** The tiny model with every module at 3 bits. */
const ModelPtr& tiny_quantized() {
  static const ModelPtr model = [] {
    const auto directory = io::ModelDirectory::open(testing::tiny_model_path());
    const auto checkpoint = models::open_checkpoint(directory);
    models::MatricesByName matrices;
    for (const auto& module : tiny()->modules()) {
      const auto q = kernels::quantize_affine(
          checkpoint.at(module.name + ".weight").load(), 3, 64);
      matrices.emplace(
          module.name,
          kernels::cpu_device().quantized(q.weight, q.scales, q.biases, 3, 64));
    }
    return ModelPtr(tiny()->with_matrices(matrices));
  }();
  return model;
}

models::Setup exact(const ModelPtr& model) {
  return {model, Compute::Exact};
}

const text::Tokenizer& tokenizer() {
  static const auto t = text::Tokenizer::load(testing::tiny_model_path());
  return *t;
}

Dataset questions(std::size_t limit) {
  return load_dataset(
      testing::tiny_model_path() / "eval_arithmetic.jsonl", limit);
}

const text::ChatTemplate& chat() {
  static const auto c = text::ChatTemplate::load(testing::tiny_model_path());
  return c;
}

/** Chats of different lengths. */
const std::vector<TokenRow>& rows() {
  static const auto r =
      encode_chats(render_chats(questions(6), chat()), tokenizer());
  return r;
}

/** Logits of all positions of one row, in double, normalized. */
std::vector<std::vector<double>>
log_probabilities(const ModelPtr& model, const TokenRow& row, Compute compute) {
  testing::SequenceRunner engine({model, compute}, {});
  const auto sequence = engine.new_sequence();
  const auto n = static_cast<int>(row.size());
  const mx::array logits = engine.extend(*sequence, row, n);
  const auto view = io::floats(logits);
  const auto vocab = static_cast<std::size_t>(logits.shape(1));
  std::vector<std::vector<double>> result;
  for (int t = 0; t < n; ++t) {
    const auto one = view.subspan(t * vocab, vocab);
    std::vector<double> p(one.begin(), one.end());
    const double top = *std::max_element(p.begin(), p.end());
    double sum = 0;
    for (const double x : p) {
      sum += std::exp(x - top);
    }
    for (double& x : p) {
      x -= top + std::log(sum);
    }
    result.push_back(std::move(p));
  }
  return result;
}

// Both sides sum in double over the same float32 logits of size up to about
// 32: an error of eps * 32 per log-probability, and as much in the sums.
constexpr double kTolerance = 128 * std::numeric_limits<double>::epsilon();

TEST(MeasureKl, OfAModelAgainstItselfIsExactlyZero) {
  const auto scores = measure_kl(exact(tiny()), exact(tiny()), rows(), {});
  EXPECT_EQ(scores.mean_kl, 0);
  EXPECT_EQ(scores.p99_kl, 0);
  EXPECT_EQ(scores.top1_agreement, 1);
  EXPECT_EQ(scores.rows, rows().size());
}

TEST(MeasureKl, MatchesTheDefinition) {
  for (const Compute compute : {Compute::Exact, Compute::Fast}) {
    double total = 0;
    double row_means = 0;
    double agreed = 0;
    std::size_t tokens = 0;
    for (const TokenRow& row : rows()) {
      const auto p = log_probabilities(tiny(), row, Compute::Exact);
      const auto q = log_probabilities(tiny_quantized(), row, compute);
      double sum = 0;
      for (std::size_t t = 0; t < row.size(); ++t) {
        for (std::size_t i = 0; i < p[t].size(); ++i) {
          sum += std::exp(p[t][i]) * (p[t][i] - q[t][i]);
        }
        const auto best = [](const std::vector<double>& v) {
          return std::max_element(v.begin(), v.end()) - v.begin();
        };
        agreed += best(p[t]) == best(q[t]) ? 1 : 0;
      }
      total += sum;
      row_means += sum / static_cast<double>(row.size());
      tokens += row.size();
    }
    const auto scores =
        measure_kl(exact(tiny()), {tiny_quantized(), compute}, rows(), {});
    EXPECT_EQ(scores.tokens, tokens);
    EXPECT_NEAR(scores.mean_kl, total / tokens, kTolerance);
    EXPECT_NEAR(scores.mean_row_kl, row_means / rows().size(), kTolerance);
    EXPECT_DOUBLE_EQ(scores.top1_agreement, agreed / tokens);
    EXPECT_GT(scores.mean_kl, 0);
    EXPECT_GT(scores.mean_kl_stderr, 0);
  }
}

TEST(MeasureKl, DoesNotDependOnThePacking) {
  const auto packed = measure_kl(
      exact(tiny()), exact(tiny_quantized()), rows(), {.batch_tokens = 4096});
  std::uint64_t events = 0;
  std::uint64_t last = 0;
  const auto apart = measure_kl(
      exact(tiny()),
      exact(tiny_quantized()),
      rows(),
      {.batch_tokens = 1, .on_progress = [&](const ProgressEvent& event) {
         ++events;
         EXPECT_GT(event.done, last);
         last = event.done;
         EXPECT_EQ(event.total, packed.tokens);
       }});
  EXPECT_EQ(packed.mean_kl, apart.mean_kl);
  EXPECT_EQ(packed.p99_kl, apart.p99_kl);
  EXPECT_EQ(events, rows().size());
  EXPECT_EQ(last, packed.tokens);
}

TEST(MeasurePerplexity, MatchesTheDefinition) {
  double total = 0;
  double tokens = 0;
  for (const TokenRow& row : rows()) {
    const auto p = log_probabilities(tiny(), row, Compute::Exact);
    for (std::size_t t = 0; t + 1 < row.size(); ++t) {
      total -= p[t][row[t + 1]];
      tokens += 1;
    }
  }
  const auto scores = measure_perplexity(exact(tiny()), rows(), {});
  EXPECT_EQ(scores.tokens, tokens);
  EXPECT_NEAR(scores.mean_nll, total / tokens, kTolerance);
  EXPECT_NEAR(scores.ppl, std::exp(total / tokens), kTolerance * scores.ppl);
}

TEST(MeasurePerplexity, RefusesARowOfOneToken) {
  const std::vector<TokenRow> short_rows{{1, 2}, {3}};
  try {
    measure_perplexity(exact(tiny()), short_rows, {});
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("row 2"), std::string::npos);
  }
}

TEST(MeasureExactMatch, CountsTheRightAnswers) {
  const Dataset dataset = questions(12);
  const auto prompts =
      encode_chats(render_questions(dataset, chat()), tokenizer());
  auto wanted = wanted_numbers(dataset);
  wanted[0] = "123456789"; // what no answer gives
  const auto directory = io::ModelDirectory::open(testing::tiny_model_path());
  const ExactMatchOptions options{
      .batch = 5, .stop_ids = generate::stop_ids(directory, tokenizer())};
  std::size_t right = 0;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    generate::Engine engine({tiny(), Compute::Fast}, {});
    const auto completion = generate::generate(
        engine,
        prompts[i],
        {.max_tokens = options.max_tokens, .stop_ids = options.stop_ids});
    right +=
        last_number(tokenizer().decode(completion.tokens, true)) == wanted[i];
  }
  const auto scores = measure_exact_match(
      {tiny(), Compute::Fast}, tokenizer(), prompts, wanted, options);
  EXPECT_EQ(scores.count, 12u);
  EXPECT_DOUBLE_EQ(scores.accuracy, static_cast<double>(right) / 12);
  // The model answers 98.8 % right: 8 of the 11 honest ones is far below.
  EXPECT_GE(right, 8u);
  EXPECT_LE(right, 11u);
  EXPECT_EQ(scores.truncated, 0u);
}

TEST(MeasureExactMatch, CountsAnswersCutShort) {
  const Dataset dataset = questions(2);
  const auto scores = measure_exact_match(
      {tiny(), Compute::Fast},
      tokenizer(),
      encode_chats(render_questions(dataset, chat()), tokenizer()),
      wanted_numbers(dataset),
      {.max_tokens = 1, .stop_ids = {}});
  EXPECT_EQ(scores.truncated, 2u);
}

TEST(ChunkText, CutsEqualRowsAndDropsTheRest) {
  const Dataset all{
      .name = "t.txt",
      .rows = {},
      .text = "One day a small bird sat on a wall and sang to the rain."};
  const TokenRow tokens = tokenizer().encode(all.text, false);
  ASSERT_GT(tokens.size(), 8u);
  const auto step = tokens.size() / 2 - 1;
  const auto chunks = chunk_text(all, tokenizer(), step, 0);
  ASSERT_EQ(chunks.size(), 2u);
  EXPECT_TRUE(std::equal(chunks[0].begin(), chunks[0].end(), tokens.begin()));
  EXPECT_TRUE(
      std::equal(chunks[1].begin(), chunks[1].end(), tokens.begin() + step));
  EXPECT_EQ(chunk_text(all, tokenizer(), step, 1).size(), 1u);
  // Shorter than one row: all there is.
  const auto only = chunk_text(all, tokenizer(), 10 * tokens.size(), 0);
  ASSERT_EQ(only.size(), 1u);
  EXPECT_EQ(only[0], tokens);
  EXPECT_EQ(chunk_text(all, tokenizer(), tokens.size(), 0), only);
  EXPECT_THROW(chunk_text(all, tokenizer(), 1, 0), Error);
}

} // namespace
} // namespace optiq::eval
