#include <algorithm>
#include <optional>

#include <fmt/format.h>

#include "optiq/report/sections_impl.h"

/** The K/V cache that optiq kv-cache chose: a row per quantized layer. */
namespace optiq::report {
namespace {

using artifacts::KvLayer;
using artifacts::KvLayerSensitivity;

/** What is known of a layer's cost. */
struct Measured {
  artifacts::KvCost cost;
  double dense_bytes = 0; // per token in bf16
};

std::optional<Measured> measured_of(
    const KvLayer& layer,
    const std::vector<KvLayerSensitivity>& sensitivity) {
  const auto found = std::find_if(
      sensitivity.begin(), sensitivity.end(), [&](const auto& entry) {
        return entry.layer_idx == layer.layer_idx;
      });
  if (found == sensitivity.end()) {
    return std::nullopt;
  }
  const auto cost = artifacts::measured_cost(layer, *found);
  if (!cost) {
    return std::nullopt;
  }
  // Keys and values of two bytes.
  return Measured{*cost, 4.0 * found->n_kv_heads * found->head_dim};
}

void write_row(
    Markup& page,
    const KvLayer& layer,
    const std::optional<Measured>& measured) {
  page.open("tr")
      .element("td", {}, std::to_string(layer.layer_idx))
      .element("td", {}, artifacts::name_of(layer.codec.method))
      .element("td", {}, fmt::format("{}", layer.codec.key_bits))
      .element("td", {}, fmt::format("{}", layer.codec.value_bits));
  if (measured) {
    page.element("td", {}, fmt::format("{}", measured->cost.bytes_per_token))
        .element("td", {}, fmt::format("{}", measured->dense_bytes))
        .element("td", {}, fmt::format("{:.3g}", measured->cost.kl));
  }
  page.close();
}

void write_table(Markup& page, const KvChoice& choice, bool costs) {
  page.open("div", {{"class", "scroll"}}).open("table").open("tr");
  for (const char* head : {"layer", "method", "K bits", "V bits"}) {
    page.element("th", {}, head);
  }
  if (costs) {
    for (const char* head : {"bytes per token", "in bf16", "KL, nats"}) {
      page.element("th", {}, head);
    }
  }
  page.close();
  for (const KvLayer& layer : choice.config.layers) {
    write_row(
        page,
        layer,
        costs ? measured_of(layer, choice.sensitivity) : std::nullopt);
  }
  page.close().close();
}

} // namespace

void write_kv_cache(Markup& page, const ReportInput& input) {
  if (!input.kv) {
    return;
  }
  double bytes = 0;
  double dense = 0;
  bool complete = true; // whether every layer's cost is known
  for (const KvLayer& layer : input.kv->config.layers) {
    const auto measured = measured_of(layer, input.kv->sensitivity);
    complete = complete && measured.has_value();
    bytes += measured ? measured->cost.bytes_per_token : 0;
    dense += measured ? measured->dense_bytes : 0;
  }
  page.open("section", {{"id", "kv"}}).element("h2", {}, "K/V cache");
  if (complete) {
    page.element(
        "p",
        {{"class", "note"}},
        fmt::format(
            "The quantized layers take {} bytes per token, bf16 takes {}. KL "
            "is what a layer's cache alone costs; of sides measured one by "
            "one, their sum.",
            bytes,
            dense));
  } else {
    page.element(
        "p",
        {{"class", "note"}},
        "Its costs were not measured (kv_sensitivity.json).");
  }
  write_table(page, *input.kv, complete);
  page.close();
}

} // namespace optiq::report
