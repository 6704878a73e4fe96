#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <variant>
#include <vector>

#include "optiq/artifacts/json.h"

namespace optiq::artifacts {

/** KL(reference || model) over the positions of a text, nats. A mean over
 * tokens weighs long rows more, a mean over rows does not. */
struct KlScores {
  double mean_kl = 0; // over tokens
  double mean_kl_stderr = 0; // over rows, of the ratio sum(kl) / tokens
  double mean_row_kl = 0; // over rows, of the row's mean
  double mean_row_kl_stderr = 0;
  double median_kl = 0;
  double p99_kl = 0;
  double top1_agreement = 0; // fraction of positions with one argmax
  double top1_agreement_stderr = 0; // over rows
  std::uint64_t tokens = 0;
  std::uint64_t rows = 0;
  std::vector<double> row_kl; // mean of each row: for paired comparisons
};

/** exp of the mean negative log-likelihood of each next token. */
struct PerplexityScores {
  double ppl = 0;
  double ppl_stderr = 0; // over rows, to first order
  double mean_nll = 0; // nats per predicted token
  std::uint64_t tokens = 0; // predicted ones
  std::uint64_t rows = 0;
};

/** Share of questions whose last number is the wanted one. */
struct ExactMatchScores {
  double accuracy = 0;
  double accuracy_stderr = 0; // sqrt(p (1 - p) / count)
  std::uint64_t count = 0;
  std::uint64_t truncated = 0; // answers cut by the token limit
};

/** Numbers found again in texts, by the text's length and the number's depth.
 */
struct NeedleScores {
  double accuracy = 0; // over all prompts
  double accuracy_stderr = 0;
  std::vector<int> lengths; // tokens of a prompt
  std::vector<double> depths; // 0 = start of the text, 1 = its end
  int trials = 0; // of each length and depth
  int facts = 0; // of the asked form in a text, the asked one included
  std::vector<std::vector<int>> right; // of the trials, [length][depth]
};

/** What `optiq eval` found, and under which conditions. */
struct EvalResult {
  std::string model;
  std::string reference; // KL only, else ""
  std::string data; // name of the file; needle: ""
  std::string compute; // of `model`: "exact", "fast" or "int8"
  std::string device = "cpu"; // of `model`
  std::string reference_device; // KL only, else ""
  std::string simd; // name of the SIMD target
  std::string kv = "dense"; // K/V cache: "dense", "affine 4", a config's name
  std::uint64_t limit = 0; // rows at most; 0 = all
  std::variant<KlScores, PerplexityScores, ExactMatchScores, NeedleScores>
      scores;
};

/** "kl", "ppl", "exact-match" or "needle". */
std::string task_of(const EvalResult& result);

/** One flat object (format: docs/formats.md). The standard error of a task's
 * first figure is `stderr`, of any other `<key>_stderr`. */
Json to_json(const EvalResult& result);
/** Throws Corrupt naming `where` and the key. */
EvalResult eval_result_from_json(const Json& json, const std::string& where);

/** optiq/eval*.json of a model directory, by file name; may be empty. */
std::vector<EvalResult> read_eval_results(
    const std::filesystem::path& directory);

} // namespace optiq::artifacts
