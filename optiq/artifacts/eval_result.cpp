#include "optiq/artifacts/eval_result.h"

#include <algorithm>

#include "optiq/base/error.h"

namespace optiq::artifacts {
namespace {

template <typename... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};
template <typename... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;

void add_scores(Json& json, const KlScores& scores) {
  json["mean_kl"] = scores.mean_kl;
  json["stderr"] = scores.mean_kl_stderr;
  json["mean_row_kl"] = scores.mean_row_kl;
  json["mean_row_kl_stderr"] = scores.mean_row_kl_stderr;
  json["median_kl"] = scores.median_kl;
  json["p99_kl"] = scores.p99_kl;
  json["top1_agreement"] = scores.top1_agreement;
  json["top1_agreement_stderr"] = scores.top1_agreement_stderr;
  json["tokens"] = scores.tokens;
  json["rows"] = scores.rows;
  json["row_kl"] = scores.row_kl;
}

void add_scores(Json& json, const PerplexityScores& scores) {
  json["ppl"] = scores.ppl;
  json["stderr"] = scores.ppl_stderr;
  json["mean_nll"] = scores.mean_nll;
  json["tokens"] = scores.tokens;
  json["rows"] = scores.rows;
}

void add_scores(Json& json, const ExactMatchScores& scores) {
  json["accuracy"] = scores.accuracy;
  json["stderr"] = scores.accuracy_stderr;
  json["count"] = scores.count;
  json["truncated"] = scores.truncated;
}

void add_scores(Json& json, const NeedleScores& scores) {
  json["accuracy"] = scores.accuracy;
  json["stderr"] = scores.accuracy_stderr;
  json["lengths"] = scores.lengths;
  json["depths"] = scores.depths;
  json["trials"] = scores.trials;
  json["facts"] = scores.facts;
  json["right"] = scores.right;
}

KlScores kl_from_json(const Json& json, const std::string& where) {
  return {
      .mean_kl = required<double>(json, "mean_kl", where),
      .mean_kl_stderr = required<double>(json, "stderr", where),
      .mean_row_kl = required<double>(json, "mean_row_kl", where),
      .mean_row_kl_stderr = required<double>(json, "mean_row_kl_stderr", where),
      .median_kl = required<double>(json, "median_kl", where),
      .p99_kl = required<double>(json, "p99_kl", where),
      .top1_agreement = required<double>(json, "top1_agreement", where),
      .top1_agreement_stderr =
          required<double>(json, "top1_agreement_stderr", where),
      .tokens = required<std::uint64_t>(json, "tokens", where),
      .rows = required<std::uint64_t>(json, "rows", where),
      .row_kl = required<std::vector<double>>(json, "row_kl", where)};
}

PerplexityScores perplexity_from_json(
    const Json& json,
    const std::string& where) {
  return {
      .ppl = required<double>(json, "ppl", where),
      .ppl_stderr = required<double>(json, "stderr", where),
      .mean_nll = required<double>(json, "mean_nll", where),
      .tokens = required<std::uint64_t>(json, "tokens", where),
      .rows = required<std::uint64_t>(json, "rows", where)};
}

ExactMatchScores exact_match_from_json(
    const Json& json,
    const std::string& where) {
  return {
      .accuracy = required<double>(json, "accuracy", where),
      .accuracy_stderr = required<double>(json, "stderr", where),
      .count = required<std::uint64_t>(json, "count", where),
      .truncated = required<std::uint64_t>(json, "truncated", where)};
}

NeedleScores needle_from_json(const Json& json, const std::string& where) {
  NeedleScores scores{
      .accuracy = required<double>(json, "accuracy", where),
      .accuracy_stderr = required<double>(json, "stderr", where),
      .lengths = required<std::vector<int>>(json, "lengths", where),
      .depths = required<std::vector<double>>(json, "depths", where),
      .trials = required<int>(json, "trials", where),
      .facts = required<int>(json, "facts", where),
      .right = required<std::vector<std::vector<int>>>(json, "right", where)};
  bool fits = scores.right.size() == scores.lengths.size();
  for (const std::vector<int>& row : scores.right) {
    fits = fits && row.size() == scores.depths.size();
  }
  if (!fits) {
    fail(
        ErrorKind::Corrupt,
        "[eval_result_from_json] {}: 'right' is not a table of {} lengths by "
        "{} depths",
        where,
        scores.lengths.size(),
        scores.depths.size());
  }
  return scores;
}

} // namespace

std::string task_of(const EvalResult& result) {
  return std::visit(
      Overloaded{
          [](const KlScores&) { return "kl"; },
          [](const PerplexityScores&) { return "ppl"; },
          [](const ExactMatchScores&) { return "exact-match"; },
          [](const NeedleScores&) { return "needle"; }},
      result.scores);
}

Json to_json(const EvalResult& result) {
  Json json;
  json["task"] = task_of(result);
  json["model"] = result.model;
  if (!result.reference.empty()) {
    json["reference"] = result.reference;
    json["reference_device"] = result.reference_device;
  }
  json["data"] = result.data;
  json["compute"] = result.compute;
  json["device"] = result.device;
  json["simd"] = result.simd;
  json["kv"] = result.kv;
  json["limit"] = result.limit;
  std::visit(
      [&](const auto& scores) { add_scores(json, scores); }, result.scores);
  return json;
}

EvalResult eval_result_from_json(const Json& json, const std::string& where) {
  EvalResult result{
      .model = required<std::string>(json, "model", where),
      .reference =
          optional_or<std::string>(json, "reference", where, std::string()),
      .data = required<std::string>(json, "data", where),
      .compute = required<std::string>(json, "compute", where),
      .device = optional_or<std::string>(json, "device", where, "cpu"),
      .reference_device = optional_or<std::string>(
          json, "reference_device", where, std::string()),
      .simd = required<std::string>(json, "simd", where),
      .kv = optional_or<std::string>(json, "kv", where, "dense"),
      .limit = required<std::uint64_t>(json, "limit", where),
      .scores = {}};
  const auto task = required<std::string>(json, "task", where);
  if (task == "kl") {
    result.scores = kl_from_json(json, where);
  } else if (task == "ppl") {
    result.scores = perplexity_from_json(json, where);
  } else if (task == "exact-match") {
    result.scores = exact_match_from_json(json, where);
  } else if (task == "needle") {
    result.scores = needle_from_json(json, where);
  } else {
    fail(
        ErrorKind::Corrupt,
        "[eval_result_from_json] {}: found task '{}', expected 'kl', 'ppl', "
        "'exact-match' or 'needle'. Was it written by another version?",
        where,
        task);
  }
  return result;
}

std::vector<EvalResult> read_eval_results(
    const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> files;
  std::error_code missing; // no optiq/ folder: nothing to read
  for (const auto& entry :
       std::filesystem::directory_iterator(directory / "optiq", missing)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("eval") && name.ends_with(".json")) {
      files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  std::vector<EvalResult> results;
  results.reserve(files.size());
  for (const auto& file : files) {
    results.push_back(
        eval_result_from_json(read_json_file(file), file.string()));
  }
  return results;
}

} // namespace optiq::artifacts
