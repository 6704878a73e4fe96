#include "optiq/server/metrics.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "optiq/base/version.h"

// Prometheus' text format 0.0.4 ("Exposition formats"):
//   # HELP name text
//   # TYPE name counter|gauge|histogram
//   name{label="value"} number
// A histogram has name_bucket{le="bound"}, cumulative and with a last one of
// +Inf, name_sum and name_count. Values of labels escape \, " and newlines.
namespace optiq::server {
namespace {

using Snapshot = Histogram::Snapshot;

const std::vector<double> kSeconds{
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    120};
const std::vector<double> kTokens{
    1,
    4,
    16,
    64,
    256,
    512,
    1024,
    2048,
    4096,
    8192,
    16384,
    32768,
    65536,
    131072};
const std::vector<double> kRows{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};

constexpr std::size_t kMaxAdapterLabels = 64;
constexpr const char* kOtherAdapters = "(other)"; // no adapter's id

constexpr const char* kEnds[kAnswerEnds] = {
    "stop",
    "length",
    "abandoned",
    "failed"};

std::string escape_label(std::string_view value) {
  std::string escaped;
  for (const char c : value) {
    if (c == '\\' || c == '"') {
      escaped += '\\';
    }
    escaped += c == '\n' ? "\\n" : std::string(1, c);
  }
  return escaped;
}

/** The text, family by family. */
class Page {
 public:
  void family(const char* name, const char* type, const char* help) {
    name_ = fmt::format("optiq_{}", name);
    text_ += fmt::format("# HELP {0} {2}\n# TYPE {0} {1}\n", name_, type, help);
  }

  void sample(double value, const std::string& labels = "") {
    text_ += fmt::format("{}{} {}\n", name_, labels, value);
  }
  void sample(std::uint64_t value, const std::string& labels = "") {
    text_ += fmt::format("{}{} {}\n", name_, labels, value);
  }

  void single(
      const char* name,
      const char* type,
      const char* help,
      std::uint64_t value) {
    family(name, type, help);
    sample(value);
  }

  void histogram(const char* name, const char* help, const Snapshot& data) {
    family(name, "histogram", help);
    std::uint64_t n = 0;
    for (std::size_t i = 0; i < data.counts.size(); ++i) {
      n += data.counts[i];
      const std::string bound = i < data.bounds.size()
          ? fmt::format("{}", data.bounds[i])
          : std::string("+Inf");
      text_ += fmt::format("{}_bucket{{le=\"{}\"}} {}\n", name_, bound, n);
    }
    text_ += fmt::format("{0}_sum {1}\n{0}_count {2}\n", name_, data.sum, n);
  }

  std::string take() {
    return std::move(text_);
  }

 private:
  std::string name_;
  std::string text_;
};

/** A number of the engine's: one row of the page. */
struct EngineRow {
  const char* name;
  const char* type;
  const char* help;
  std::uint64_t (*value)(const EngineFacts& facts);
};

constexpr EngineRow kEngineRows[] = {
    {"requests_running",
     "gauge",
     "Sequences in the batch.",
     [](const EngineFacts& f) { return std::uint64_t(f.status.running); }},
    {"requests_waiting",
     "gauge",
     "Sequences in the queue.",
     [](const EngineFacts& f) { return std::uint64_t(f.status.waiting); }},
    {"answers_open",
     "gauge",
     "Requests for answers that have not ended.",
     [](const EngineFacts& f) { return std::uint64_t(f.open_answers); }},
    {"steps_total",
     "counter",
     "Forwards of the model.",
     [](const EngineFacts& f) { return f.status.steps; }},
    {"prompt_tokens_total",
     "counter",
     "Tokens of prompts that were computed.",
     [](const EngineFacts& f) { return f.status.prompt_tokens; }},
    {"prefix_hit_tokens_total",
     "counter",
     "Tokens of prompts that came from kept prefixes.",
     [](const EngineFacts& f) { return f.status.cached_tokens; }},
    {"answer_tokens_total",
     "counter",
     "Tokens of answers.",
     [](const EngineFacts& f) { return f.status.answer_tokens; }},
    {"preemptions_total",
     "counter",
     "Sequences that made room for older ones and were resumed.",
     [](const EngineFacts& f) { return f.status.preemptions; }},
    {"engine_restarts_total",
     "counter",
     "Times that the engine was made anew after a failure.",
     [](const EngineFacts& f) { return f.restarts; }},
    {"kv_bytes",
     "gauge",
     "Memory of sequences and kept prefixes.",
     [](const EngineFacts& f) { return std::uint64_t(f.status.cache_bytes); }},
    {"prefix_bytes",
     "gauge",
     "Of it, prefixes on which nobody runs.",
     [](const EngineFacts& f) { return std::uint64_t(f.status.prefix_bytes); }},
    {"kv_max_bytes",
     "gauge",
     "The most that it may be.",
     [](const EngineFacts& f) {
       return std::uint64_t(f.status.max_cache_bytes);
     }},
    {"kv_bytes_per_token",
     "gauge",
     "Memory of one more token in the server's K/V format.",
     [](const EngineFacts& f) { return std::uint64_t(f.kv_bytes_per_token); }},
    {"adapters_mounted",
     "gauge",
     "Adapters that requests may name.",
     [](const EngineFacts& f) { return std::uint64_t(f.adapters_mounted); }},
    {"adapters_resident",
     "gauge",
     "Adapters, and sums of them, in memory.",
     [](const EngineFacts& f) { return std::uint64_t(f.adapters_resident); }},
    {"adapter_bytes",
     "gauge",
     "Memory of these adapters.",
     [](const EngineFacts& f) { return std::uint64_t(f.adapter_bytes); }},
    {"adapter_max_bytes",
     "gauge",
     "The most that it may be.",
     [](const EngineFacts& f) { return std::uint64_t(f.adapter_max_bytes); }},
};

/** The counters that have labels of what was asked. */
void add_counts(
    Page& page,
    const std::map<std::pair<std::string, int>, std::uint64_t>& responses,
    const std::map<std::string, std::uint64_t>& adapters) {
  page.family("http_responses_total", "counter", "Responses begun.");
  for (const auto& [key, n] : responses) {
    page.sample(
        n,
        fmt::format(
            "{{endpoint=\"{}\",status=\"{}\"}}",
            escape_label(key.first),
            key.second));
  }
  page.family(
      "adapter_requests_total",
      "counter",
      "Requests for answers by the adapters that they name.");
  for (const auto& [id, n] : adapters) {
    page.sample(n, fmt::format("{{adapter=\"{}\"}}", escape_label(id)));
  }
}

} // namespace

Histogram::Histogram(std::vector<double> bounds) {
  data_.counts.resize(bounds.size() + 1);
  data_.bounds = std::move(bounds);
}

void Histogram::observe(double value) {
  const auto at = std::lower_bound(
      data_.bounds.begin(), data_.bounds.end(), value); // never changes
  const std::lock_guard lock(mutex_);
  ++data_.counts[static_cast<std::size_t>(at - data_.bounds.begin())];
  data_.sum += value;
}

Histogram::Snapshot Histogram::snapshot() const {
  const std::lock_guard lock(mutex_);
  return data_;
}

Metrics::Metrics()
    : queue_seconds(kSeconds),
      first_token_seconds(kSeconds),
      inter_token_seconds(kSeconds),
      prompt_tokens(kTokens),
      answer_tokens(kTokens),
      step_sequences(kRows),
      step_rows(kRows) {}

void Metrics::count_response(std::string_view endpoint, int status) {
  const std::lock_guard lock(mutex_);
  ++responses_[{std::string(endpoint), status}];
}

void Metrics::count_answer(AnswerEnd end) {
  ++answers_[static_cast<std::size_t>(end)];
}

void Metrics::count_adapter(const std::string& id) {
  const std::lock_guard lock(mutex_);
  const bool has_label =
      adapters_.size() < kMaxAdapterLabels || adapters_.contains(id);
  ++adapters_[has_label ? id : kOtherAdapters];
}

std::string Metrics::text(const EngineFacts& facts) const {
  Page page;
  page.family("info", "gauge", "Version and model.");
  page.sample(
      std::uint64_t{1},
      fmt::format(
          "{{version=\"{}\",model=\"{}\"}}",
          kVersion,
          escape_label(facts.model)));
  for (const EngineRow& row : kEngineRows) {
    page.single(row.name, row.type, row.help, row.value(facts));
  }
  page.family("answers_total", "counter", "Answers by what ended them.");
  for (std::size_t i = 0; i < kAnswerEnds; ++i) {
    page.sample(answers_[i].load(), fmt::format("{{end=\"{}\"}}", kEnds[i]));
  }
  {
    const std::lock_guard lock(mutex_);
    add_counts(page, responses_, adapters_);
  }
  page.histogram(
      "queue_seconds",
      "From the request to its place in the batch.",
      queue_seconds.snapshot());
  page.histogram(
      "time_to_first_token_seconds",
      "From the request to its first token.",
      first_token_seconds.snapshot());
  page.histogram(
      "inter_token_seconds",
      "Between two tokens of a sequence.",
      inter_token_seconds.snapshot());
  page.histogram(
      "request_prompt_tokens",
      "Tokens of a request's prompts.",
      prompt_tokens.snapshot());
  page.histogram(
      "request_answer_tokens", "Tokens of a choice.", answer_tokens.snapshot());
  page.histogram(
      "step_sequences", "Sequences in a forward.", step_sequences.snapshot());
  page.histogram("step_rows", "Tokens in a forward.", step_rows.snapshot());
  return page.take();
}

} // namespace optiq::server
