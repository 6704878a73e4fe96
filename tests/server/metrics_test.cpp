#include "optiq/server/metrics.h"

#include <gtest/gtest.h>

#include "support/prometheus.h"

namespace optiq::server {
namespace {

TEST(Metrics, CountsInTheFirstBucketThatHolds) {
  Histogram histogram({1, 10});
  for (const double value : {0.5, 1.0, 1.5, 10.0, 11.0}) {
    histogram.observe(value);
  }
  const auto data = histogram.snapshot();
  EXPECT_EQ(data.counts, (std::vector<std::uint64_t>{2, 2, 1}));
  EXPECT_EQ(data.sum, 24);
}

TEST(Metrics, WritesWhatPrometheusReads) {
  Metrics metrics;
  metrics.count_response("/health", 200);
  metrics.count_response("/health", 200);
  metrics.count_response("/v1/completions", 400);
  metrics.count_answer(AnswerEnd::Length);
  metrics.first_token_seconds.observe(0.02);
  metrics.first_token_seconds.observe(1e6);
  EngineFacts facts{
      .restarts = 1,
      .open_answers = 2,
      .kv_bytes_per_token = 12288,
      .model = "a \"b\"\\c\nd"};
  facts.status.running = 3;
  facts.status.cached_tokens = 7;
  facts.status.cache_bytes = std::size_t{5} << 30;
  const testing::PrometheusPage page(metrics.text(facts));
  EXPECT_EQ(page["optiq_requests_running"], 3);
  EXPECT_EQ(page["optiq_prefix_hit_tokens_total"], 7);
  EXPECT_EQ(page["optiq_kv_bytes"], 5.0 * (1 << 30));
  EXPECT_EQ(page["optiq_kv_bytes_per_token"], 12288);
  EXPECT_EQ(page["optiq_answers_open"], 2);
  EXPECT_EQ(page["optiq_answers_total{end=\"length\"}"], 1);
  EXPECT_EQ(page["optiq_answers_total{end=\"stop\"}"], 0);
  EXPECT_EQ(
      page["optiq_http_responses_total{endpoint=\"/health\",status=\"200\"}"],
      2);
  EXPECT_EQ(page["optiq_time_to_first_token_seconds_bucket{le=\"0.01\"}"], 0);
  EXPECT_EQ(page["optiq_time_to_first_token_seconds_bucket{le=\"0.025\"}"], 1);
  EXPECT_EQ(page["optiq_time_to_first_token_seconds_count"], 2);
}

TEST(Metrics, CountsTheFirstAdaptersByNameAndTheOthersTogether) {
  Metrics metrics;
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 100; ++i) {
      metrics.count_adapter("a" + std::to_string(i));
    }
  }
  const testing::PrometheusPage page(metrics.text({}));
  EXPECT_EQ(page["optiq_adapter_requests_total{adapter=\"a0\"}"], 2);
  EXPECT_EQ(page["optiq_adapter_requests_total{adapter=\"a63\"}"], 2);
  EXPECT_EQ(page["optiq_adapter_requests_total{adapter=\"(other)\"}"], 72);
}

} // namespace
} // namespace optiq::server
