// Choosing a token from a row of 250,000 logits: microseconds per row, of rows
// that a step has just written.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "benchmarks/support.h"

#include "optiq/base/system.h"
#include "optiq/base/thread_pool.h"
#include "optiq/generate/sample_rows.h"
#include "optiq/kernels/machine.h"

namespace {

using namespace optiq::generate;
using bench::time_runs;
using bench::Timing;

constexpr int kVocabulary = 250'000;
constexpr int kMaxRows = 8;
using Row = std::vector<float>;

/** Normal logits; in a peaked row, as of a model that knows what comes, forty
 * tokens stand out from the others. */
Row make_row(bool is_peaked, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.f, is_peaked ? 2.5f : 1.f);
  Row row(kVocabulary);
  for (float& logit : row) {
    logit = normal(random);
  }
  for (int i = 0; is_peaked && i < 40; ++i) {
    row[random() % kVocabulary] = 22.f - .3f * static_cast<float>(i);
  }
  return row;
}

struct Case {
  std::string name;
  SamplerOptions sampler;
  LogitsOptions logits = {};
  std::optional<int> top_logprobs = {};
};

std::vector<Case> make_cases() {
  const SamplerOptions serve{.temperature = .6f, .top_p = .95f, .top_k = 20};
  SamplerOptions warmed = serve;
  warmed.order = FilterOrder::Transformers;
  LogitsOptions penalties{
      .repetition_penalty = 1.1f,
      .presence_penalty = .5f,
      .frequency_penalty = .5f};
  for (int i = 0; i < 300; ++i) {
    penalties.logit_bias[i * 7] = 1.f;
  }
  return {
      {"greedy", {}},
      {"temperature 1", {.temperature = 1.f}},
      {"temperature .6, top_p .95, top_k 20", serve},
      {"the same in transformers' order", warmed},
      {"top_p .9", {.temperature = 1.f, .top_p = .9f}},
      {"min_p .05", {.temperature = 1.f, .min_p = .05f}},
      {"typical_p .9", {.temperature = 1.f, .typical_p = .9f}},
      {"serve's, logprobs 5", serve, {}, 5},
      {"serve's, logprobs 5, penalties, 300 biases", serve, penalties, 5},
  };
}

/** The largest logit, and the share of the mass above another. */
bool is_plausible(const Row& row, const Case& c, const AnswerToken& token) {
  const float largest = *std::max_element(row.begin(), row.end());
  const float chosen = row[static_cast<std::size_t>(token.id)];
  if (c.sampler.temperature == 0.f) {
    return chosen == largest;
  }
  double above = 0;
  double mass = 0;
  for (const float logit : row) {
    const double weight = std::exp(double{logit} - largest);
    mass += weight;
    above += logit > chosen ? weight : 0;
  }
  const double logprob = double{chosen} - largest - std::log(mass);
  return above < (c.sampler.top_p + 1e-6) * mass &&
      (!token.logprob || !c.logits.logit_bias.empty() ||
       std::abs(*token.logprob - logprob) < 1e-5);
}

void bench_case(const Case& c, const std::vector<Row>& data, int n_rows) {
  std::vector<LogitsProcessors> processors;
  std::vector<Sampler> samplers;
  const std::vector<std::int32_t> prompt{1, 2, 3};
  for (int i = 0; i < n_rows; ++i) {
    processors.emplace_back(c.logits, prompt, prompt, 1000);
    samplers.emplace_back(c.sampler);
    for (std::int32_t token = 0; token < 200; ++token) {
      processors.back().push(token * 1009);
    }
  }
  std::vector<RowToSample> rows;
  for (int i = 0; i < n_rows; ++i) {
    const auto at = static_cast<std::size_t>(i);
    rows.push_back(
        {.logits = data[at],
         .processors = &processors[at],
         .sampler = &samplers[at],
         .top_logprobs = c.top_logprobs});
  }
  const Timing t = time_runs(101, [&] { sample_rows(rows); });
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].error || !is_plausible(data[i], c, rows[i].token)) {
      std::printf("%s: token %d is wrong\n", c.name.c_str(), rows[i].token.id);
      std::exit(1);
    }
  }
  std::printf(
      "| %-44s | %d | %7.1f (%.1f-%.1f) |\n",
      c.name.c_str(),
      n_rows,
      1e6 * t.median / n_rows,
      1e6 * t.fastest / n_rows,
      1e6 * t.slowest / n_rows);
}

} // namespace

int main() {
  std::printf(
      "%s, %s, %d threads, us per row: median (fastest-slowest)\n",
      optiq::system_info().cpu.c_str(),
      optiq::kernels::simd_target().c_str(),
      optiq::ThreadPool::shared().size());
  for (const bool is_peaked : {true, false}) {
    std::printf("%s rows\n", is_peaked ? "peaked" : "flat");
    std::vector<Row> data;
    for (unsigned i = 0; i < kMaxRows; ++i) {
      data.push_back(make_row(is_peaked, i));
    }
    for (const Case& c : make_cases()) {
      for (const int n_rows : {1, kMaxRows}) {
        bench_case(c, data, n_rows);
      }
    }
  }
  return 0;
}
