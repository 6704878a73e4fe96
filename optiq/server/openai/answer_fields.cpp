#include "optiq/server/openai/answer_fields.h"

#include <charconv>
#include <limits>
#include <utility>

#include <fmt/format.h>

#include "optiq/artifacts/affine_format.h"
#include "optiq/server/request_error.h"
#include "optiq/server/served_adapters.h"

namespace optiq::server::openai {
namespace {

using artifacts::Json;

constexpr double kMaxInt = std::numeric_limits<int>::max();
constexpr std::size_t kMaxBiases = 1u << 16;
constexpr std::size_t kMaxStopBytes = 4096;
constexpr std::size_t kMaxStops = 16;
constexpr std::size_t kMaxName = 512; // bytes
constexpr std::size_t kMaxSelection = 1024; // bytes
constexpr std::size_t kMaxModelName = kMaxName + kMaxSelection;
constexpr double kMaxWeight = 100; // of an adapter

/** "50256" -> 50256; names of logit_bias are ids. */
std::int32_t parse_id(const std::string& text) {
  std::int32_t id = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), id);
  if (error != std::errc() || end != text.data() + text.size() || id < 0) {
    refuse_field(
        "logit_bias",
        "invalid_value",
        fmt::format(
            "[logit_bias] found the name {}, expected the id of a token, as in "
            "\"42\"",
            artifacts::describe(text)));
  }
  return id;
}

void read_logit_bias(const Json& value, SamplingFields& to) {
  for (const auto& [name, bias] : value.items()) {
    to.logit_bias[parse_id(name)] = bias.get<float>();
  }
}

Fields<SamplingFields> sampling_fields() {
  using S = SamplingFields;
  return {
      {{"temperature",
        number(0, 2),
        "What logits are divided by before a token is drawn; 0 takes the most "
        "probable token."},
       into(&S::temperature)},
      {{"top_p",
        number_above(0, 1),
        "Draws from the fewest tokens that have this share of the "
        "probability; 1 = off."},
       into(&S::top_p)},
      {{"top_k",
        integer(0, kMaxInt),
        "Draws from the k most probable tokens; 0 = off."},
       into(&S::top_k)},
      {{"min_p",
        number_below(0, 1),
        "Draws from tokens with at least this share of the most probable "
        "token's probability; 0 = off."},
       into(&S::min_p)},
      {{"typical_p", number_above(0, 1), "Locally typical sampling; 1 = off."},
       into(&S::typical_p)},
      {{"repetition_penalty",
        number_above(0, 10),
        "Divides the logits of tokens of prompt and answer (multiplies "
        "negative ones); 1 = off."},
       into(&S::repetition_penalty)},
      {{"presence_penalty",
        number(-2, 2),
        "Taken from the logits of tokens that the answer has; 0 = off."},
       into(&S::presence_penalty)},
      {{"frequency_penalty",
        number(-2, 2),
        "The same, for each time that the answer has the token."},
       into(&S::frequency_penalty)},
      {{"logit_bias",
        map(number(-100, 100), kMaxBiases),
        "Added to the logits of tokens, by their ids."},
       read_logit_bias},
      {{"seed",
        integer(-0x1p63, 0x1p63),
        "Of drawing: the same request with the same seed has the same answer. "
        "Choice i has seed + i."},
       into(&S::seed)}};
}

/** "4" or "4,2": keys, values. */
std::pair<double, double> parse_sides(const std::string& text) {
  const auto parse = [&](std::string_view part) {
    double bits = 0;
    const auto [end, error] =
        std::from_chars(part.data(), part.data() + part.size(), bits);
    if (error != std::errc() || end != part.data() + part.size()) {
      refuse_field(
          "kv_cache.bits",
          "invalid_value",
          fmt::format(
              "[kv_cache] bits: found {}, expected a width as in 4, or those "
              "of keys and values as in \"4,2\"",
              artifacts::describe(text)));
    }
    return bits;
  };
  const std::size_t comma = text.find(',');
  const std::string_view all = text;
  const double keys = parse(all.substr(0, comma));
  return {
      keys, comma == std::string::npos ? keys : parse(all.substr(comma + 1))};
}

void read_bits(const Json& value, artifacts::KvCodec& to) {
  if (value.is_string()) {
    std::tie(to.key_bits, to.value_bits) =
        parse_sides(value.get<std::string>());
  } else {
    to.key_bits = to.value_bits = value.get<double>();
  }
}

void read_method(const Json& value, artifacts::KvCodec& to) {
  const auto name = value.get<std::string>();
  to.method = name == artifacts::name_of(artifacts::KvMethod::Dense)
      ? artifacts::KvMethod::Dense
      : artifacts::kv_method_of(name);
}

void read_rotation(const Json& value, artifacts::KvCodec& to) {
  to.rotation = artifacts::kv_rotation_of(value.get<std::string>());
}

Fields<artifacts::KvCodec> kv_cache_fields() {
  using Codec = artifacts::KvCodec;
  std::vector<Json> group_sizes(
      std::begin(artifacts::kAffineGroupSizes),
      std::end(artifacts::kAffineGroupSizes));
  return {
      {{"method", one_of({"affine", "turbo", "dense"}), "affine by default."},
       read_method},
      {{"bits",
        either({number(0, 8), string(1, 16)}),
        "Of keys and values, or \"keys,values\"."},
       read_bits},
      {{"key_bits", number(0, 8), "Of keys alone; 0 = dense."},
       into(&Codec::key_bits)},
      {{"value_bits", number(0, 8), "Of values alone; 0 = dense."},
       into(&Codec::value_bits)},
      {{"group_size", one_of(std::move(group_sizes)), "affine: of a group."},
       into(&Codec::group_size)},
      {{"rotation", one_of({"hadamard", "orthogonal"}), "turbo: by what."},
       read_rotation},
      {{"seed", integer(0, 0x1p63), "turbo: of its rotations."},
       into(&Codec::seed)}};
}

void read_kv_cache(const Json& value, AnswerFields& to) {
  const auto codec = read_members(
      value,
      kv_cache_fields(),
      artifacts::KvCodec{.method = artifacts::KvMethod::Affine});
  const bool is_dense = codec.method == artifacts::KvMethod::Dense;
  if (is_dense != (codec.key_bits == 0 && codec.value_bits == 0)) {
    refuse_field(
        "kv_cache.bits",
        "invalid_value",
        is_dense ? "[kv_cache] bits: found some with the method dense, "
                   "expected none"
                 : "[kv_cache] bits: found none, expected those of keys, of "
                   "values or of both");
  }
  to.kv_cache = codec;
}

void take_adapter(const char* field, std::string selection, AnswerFields& to) {
  if (to.adapter) {
    refuse_field(
        field,
        "invalid_value",
        fmt::format(
            "[{0}] found both {1} and {0}, expected one of them",
            field,
            to.adapter_field));
  }
  to.adapter = std::move(selection);
  to.adapter_field = field;
}

void read_adapter(const Json& value, AnswerFields& to) {
  take_adapter("adapter", value.get<std::string>(), to);
}

/** An item of `adapters`. */
struct WeightedAdapter {
  std::string id;
  double weight = 1;
};

Fields<WeightedAdapter> weighted_adapter_fields() {
  using W = WeightedAdapter;
  return {
      {{"id", string(1, kMaxAdapterId), "As /v1/adapters names it.", true},
       into(&W::id)},
      {{"weight",
        number(-kMaxWeight, kMaxWeight),
        "What the adapter adds is multiplied by; 1 by default."},
       into(&W::weight)}};
}

void read_adapters(const Json& value, AnswerFields& to) {
  if (value.is_string()) {
    take_adapter("adapters", value.get<std::string>(), to);
    return;
  }
  std::string selection;
  for (const Json& item : value) {
    const auto adapter = read_members(item, weighted_adapter_fields());
    if (!adapters::is_adapter_id(adapter.id)) {
      refuse_field(
          "adapters",
          "invalid_value",
          fmt::format(
              "[adapters] found the id {}, expected that of an adapter",
              artifacts::describe(adapter.id)));
    }
    selection += (selection.empty() ? "" : "+") + adapter.id;
    if (adapter.weight != 1) {
      selection += fmt::format("*{}", adapter.weight);
    }
  }
  take_adapter("adapters", std::move(selection), to);
}

void read_stop(const Json& value, AnswerFields& to) {
  to.stop = value.is_string() ? std::vector{value.get<std::string>()}
                              : value.get<std::vector<std::string>>();
}

void read_stream_options(const Json& value, AnswerFields& to) {
  to.has_stream_options = true;
  to.include_usage =
      artifacts::optional_or<bool>(value, "include_usage", "", false);
}

} // namespace

Fields<AnswerFields> answer_fields() {
  using A = AnswerFields;
  const Schema stop = string(1, kMaxStopBytes);
  Fields<A> fields{
      {{"model",
        string(0, kMaxModelName),
        "The served model's id, or \"default\"; with an adapter behind it, "
        "\"ID:NAME\"."},
       into(&A::model)},
      {{"stream", boolean(), "Sends the answer as server-sent events."},
       into(&A::stream)},
      {{"stream_options",
        object(
            {{"include_usage",
              boolean(),
              "Sends a last chunk with the usage and no choices."}}),
        "Of a stream."},
       read_stream_options},
      {{"n", integer(1, kMaxChoices), "So many answers."}, into(&A::n)},
      {{"stop",
        either({stop, list(stop, 0, kMaxStops)}),
        "The answer ends before the first of these strings."},
       read_stop},
      {{"max_tokens",
        integer(1, kMaxInt),
        "Of the answer; without it as many as the server gives."},
       into(&A::max_tokens)},
      {{"max_completion_tokens",
        integer(1, kMaxInt),
        "The same; goes before max_tokens."},
       into(&A::max_completion_tokens)},
      {{"kv_cache",
        schema_of(kv_cache_fields()),
        "How the keys and values of this sequence are kept; without it as the "
        "server was started."},
       read_kv_cache},
      {{"adapter",
        string(0, kMaxSelection),
        "The adapter to run with, as /v1/adapters names it; several are added: "
        "\"a*0.5+b\". \"base\" is the model alone, as without this field. A "
        "model's name may say it, too: \"ID:a\"."},
       read_adapter},
      {{"adapters",
        either(
            {string(0, kMaxSelection),
             list(schema_of(weighted_adapter_fields()), 0, kMaxAdapters)}),
        "The same, or as a list: [{\"id\": \"a\", \"weight\": 0.5}]."},
       read_adapters}};
  add_fields(fields, sampling_fields(), &A::sampling);
  return fields;
}

std::vector<Member> inert_members() {
  constexpr const char* kNoEffect = "No effect.";
  return {
      {"user", string(0, kMaxName), kNoEffect},
      {"safety_identifier", string(0, kMaxName), kNoEffect},
      {"prompt_cache_key", string(0, kMaxName), kNoEffect},
      {"prompt_cache_retention", string(0, kMaxName), kNoEffect},
      {"service_tier", string(0, kMaxName), kNoEffect},
      {"metadata", map(any(), 64), kNoEffect},
      {"store", boolean(), kNoEffect},
      {"prediction", map(any(), 64), kNoEffect}};
}

void check_answer_fields(const AnswerFields& fields, const std::string& where) {
  if (fields.has_stream_options && !fields.stream) {
    refuse_field(
        "stream_options",
        "invalid_value",
        fmt::format(
            "[{}] stream_options: found it without a stream, expected "
            "\"stream\": true beside it",
            where));
  }
}

} // namespace optiq::server::openai
