// optiq/metadata.json (optional members may be absent or null):
//
//   { "method": "optiq_mixed_precision" | "static_mixed_precision" | "uniform",
//     "schema_version": 1, "tool_version": string,
//     "base_model": string, "reference": string,
//     "target_bpw": number?, "target_bytes": int?, "achieved_bpw": number,
//     "file_bpw": number, "file_bytes": int, "predicted_kl": number,
//     "prior_weight": number?, "measured_kl": number?,
//     "n_high_bits": int, "n_low_bits": int, "threshold": 0.0,
//     "candidate_bits": [int, ...], "group_size": int,
//     "calibration": string, "calibration_hash": string,
//     "calibration_tokens": int?, "compute": string, "rounding": string?,
//     "tuned_steps": int?,
//     "per_layer": { module: { "bits": int, "group_size": int, "kl": number?,
//                              "parameters": int, "protected": bool }, ... } }
//
// per_layer is in the order of the plan. Files of the Python original have
// method, base_model, reference, target_bpw, achieved_bpw, the three counts
// and per_layer with bits and group_size; older ones lack base_model and
// reference or hold all of it inside {"optimization": {...}}.
//
// A plan file has "kind": "optiq_plan" and the members of metadata.json that
// Plan has, with its own short method names.
//
// optiq/sensitivity.json:
//
//   { "schema_version": 1, "base_model": string, "candidate_bits": [int, ...],
//     "group_size": int, "metric": "kl_divergence_vs_reference",
//     "key": string?, "form": "exact" | "fast" | "auto"?,
//     "layers": [ { "layer_name": string, "sensitivities": {bits: number, ...},
//                   "stderr": {bits: number, ...}?,
//                   "relative": {bits: number, ...}?, "param_count": int,
//                   "metadata": {} }, ... ],
//     "other_groups": [ the same with "group_size": int, ... ]? }
#include "optiq/artifacts/metadata.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <set>
#include <span>

#include "optiq/base/error.h"
#include "optiq/base/file.h"

namespace optiq::artifacts {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMetric = "kl_divergence_vs_reference";
constexpr const char* kPlanKind = "optiq_plan";

struct MethodRow {
  PlanMethod method;
  const char* name; // on the command line and in plan files
  const char* file_name; // in metadata.json
};

constexpr MethodRow kMethods[] = {
    {PlanMethod::Optiq, "optiq", "optiq_mixed_precision"},
    {PlanMethod::Static, "static", "static_mixed_precision"},
    {PlanMethod::Uniform, "uniform", "uniform"},
};

// Files of the original have it as a group size, too.
constexpr int kOther = kDenseBits;

int one_of(
    std::span<const int> known,
    int value,
    const char* key,
    const std::string& where) {
  if (value != kOther && !is_one_of(known, value)) {
    fail(
        ErrorKind::Corrupt,
        "[metadata] {}: '{}' is {}, expected {}, or {}",
        where,
        key,
        value,
        list_text(known),
        kOther);
  }
  return value;
}

template <typename T>
std::optional<T>
optional_value(const Json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) {
    return std::nullopt;
  }
  return required<T>(object, key, where);
}

/** JSON has no infinity: a measurement that failed must not vanish as null. */
double finite(double value, const char* key) {
  if (!std::isfinite(value)) {
    fail(
        ErrorKind::InvalidInput,
        "[to_json] '{}' is {}, expected a finite number",
        key,
        value);
  }
  return value;
}

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

const MethodRow& row_of(PlanMethod method) {
  return *std::find_if(
      std::begin(kMethods), std::end(kMethods), [&](const MethodRow& row) {
        return row.method == method;
      });
}

/** Accepts both spellings of a method. */
PlanMethod method_in_file(const std::string& text, const std::string& where) {
  for (const MethodRow& row : kMethods) {
    if (text == row.name || text == row.file_name) {
      return row.method;
    }
  }
  fail(
      ErrorKind::Corrupt,
      "[metadata] {}: 'method' is '{}', expected optiq_mixed_precision, "
      "static_mixed_precision or uniform",
      where,
      text);
}

SensitivityForm form_in_file(
    const std::string& text,
    const std::string& where) {
  try {
    return sensitivity_form_of(text);
  } catch (const Error&) {
    fail(
        ErrorKind::Corrupt,
        "[sensitivity_from_json] {}: 'form' is '{}', expected exact, fast or "
        "auto",
        where,
        text);
  }
}

int schema_version(const Json& json, const std::string& where) {
  const int version = optional_or(json, "schema_version", where, 0);
  if (version < 0 || version > kSchemaVersion) {
    fail(
        ErrorKind::Unsupported,
        "[metadata] {}: 'schema_version' is {}, expected at most {}. Was it "
        "written by a newer OptIQ?",
        where,
        version,
        kSchemaVersion);
  }
  return version;
}

void require_object(const Json& json, const std::string& where) {
  if (!json.is_object()) {
    fail(
        ErrorKind::Corrupt,
        "[metadata] {}: found {}, expected an object",
        where,
        describe(json));
  }
}

Json layers_to_json(const std::vector<LayerBits>& layers) {
  Json per_layer = Json::object();
  std::set<std::string> names;
  for (const LayerBits& layer : layers) {
    if (!names.insert(layer.name).second) {
      fail(
          ErrorKind::InvalidInput,
          "[to_json] layer '{}' occurs twice, expected once",
          layer.name);
    }
    per_layer[layer.name] = {
        {"bits", layer.bits},
        {"group_size", layer.group_size},
        {"kl", layer.kl ? Json(finite(*layer.kl, "kl")) : Json(nullptr)},
        {"parameters", layer.parameters},
        {"protected", layer.is_protected}};
  }
  return per_layer;
}

std::vector<LayerBits> layers_from_json(
    const Json& json,
    int default_group_size,
    const std::string& where) {
  std::vector<LayerBits> layers;
  for (const auto& [name, entry] :
       required_object(json, "per_layer", where).items()) {
    const std::string at = fmt::format("{}: per_layer '{}'", where, name);
    require_object(entry, at);
    layers.push_back(
        {.name = name,
         .bits =
             one_of(kAffineBits, required<int>(entry, "bits", at), "bits", at),
         .group_size = one_of(
             kAffineGroupSizes,
             optional_or(entry, "group_size", at, default_group_size),
             "group_size",
             at),
         .parameters = optional_or<std::uint64_t>(entry, "parameters", at, 0),
         .is_protected = optional_or(entry, "protected", at, false),
         .kl = optional_value<double>(entry, "kl", at)});
  }
  return layers;
}

/** The widths that occur, for files that do not list the candidates. */
std::vector<int> widths_of(const std::vector<LayerBits>& layers) {
  std::set<int> widths;
  for (const LayerBits& layer : layers) {
    widths.insert(layer.bits);
  }
  return {widths.begin(), widths.end()};
}

std::vector<int> candidates_from_json(
    const Json& json,
    const std::string& where) {
  auto bits = optional_or<std::vector<int>>(
      json, "candidate_bits", where, std::vector<int>{});
  for (const int width : bits) {
    one_of(kAffineBits, width, "candidate_bits", where);
  }
  return bits;
}

/** What plan files and metadata files share. */
Plan read_plan_members(const Json& json, const std::string& where) {
  Plan plan;
  plan.method = method_in_file(
      optional_or<std::string>(json, "method", where, "optiq"), where);
  plan.group_size = one_of(
      kAffineGroupSizes,
      optional_or(json, "group_size", where, 64),
      "group_size",
      where);
  plan.layers = layers_from_json(json, plan.group_size, where);
  plan.candidate_bits = candidates_from_json(json, where);
  if (plan.candidate_bits.empty()) {
    plan.candidate_bits = widths_of(plan.layers);
  }
  plan.target_bpw = optional_value<double>(json, "target_bpw", where);
  plan.target_bytes =
      optional_value<std::uint64_t>(json, "target_bytes", where);
  plan.achieved_bpw = optional_or(json, "achieved_bpw", where, 0.0);
  plan.file_bytes = optional_or<std::uint64_t>(json, "file_bytes", where, 0);
  plan.file_bpw = optional_or(json, "file_bpw", where, 0.0);
  plan.predicted_kl = optional_or(json, "predicted_kl", where, 0.0);
  plan.prior_weight = optional_value<double>(json, "prior_weight", where);
  plan.measured_kl = optional_value<double>(json, "measured_kl", where);
  return plan;
}

int count_width(const Plan& plan, int bits) {
  return static_cast<int>(std::count_if(
      plan.layers.begin(), plan.layers.end(), [&](const LayerBits& layer) {
        return layer.bits == bits;
      }));
}

Json widths_to_json(const std::map<int, double>& values, const char* key) {
  Json json = Json::object();
  for (const auto& [bits, value] : values) {
    json[std::to_string(bits)] = finite(value, key);
  }
  return json;
}

Json layer_to_json(const LayerSensitivity& layer) {
  return {
      {"layer_name", layer.name},
      {"sensitivities", widths_to_json(layer.kl, "sensitivities")},
      {"stderr", widths_to_json(layer.kl_stderr, "stderr")},
      {"relative", widths_to_json(layer.relative_kl, "relative")},
      {"param_count", layer.parameters},
      {"metadata", Json::object()}};
}

std::map<int, double> widths_from_json(
    const Json& json,
    const std::string& where) {
  std::map<int, double> values;
  for (const auto& [text, value] : json.items()) {
    int bits = 0;
    const char* end = text.data() + text.size();
    const auto [next, error] = std::from_chars(text.data(), end, bits);
    if (error != std::errc() || next != end) {
      fail(
          ErrorKind::Corrupt,
          "[metadata] {}: key '{}', expected a bit width",
          where,
          text);
    }
    one_of(kAffineBits, bits, "bits", where);
    values[bits] = required<double>(json, text.c_str(), where);
  }
  return values;
}

LayerSensitivity layer_sensitivity(
    const Json& entry,
    int default_group_size,
    const std::string& where) {
  require_object(entry, where);
  LayerSensitivity layer;
  layer.group_size = one_of(
      kAffineGroupSizes,
      optional_or(entry, "group_size", where, default_group_size),
      "group_size",
      where);
  layer.name = required<std::string>(entry, "layer_name", where);
  const std::string at = fmt::format("{}: layer '{}'", where, layer.name);
  layer.parameters = optional_or<std::uint64_t>(entry, "param_count", at, 0);
  layer.kl = widths_from_json(required_object(entry, "sensitivities", at), at);
  if (entry.contains("relative")) {
    layer.relative_kl =
        widths_from_json(required_object(entry, "relative", at), at);
  }
  if (entry.contains("stderr")) {
    layer.kl_stderr =
        widths_from_json(required_object(entry, "stderr", at), at);
  }
  return layer;
}

std::optional<Json> read_if_there(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) {
    return std::nullopt;
  }
  return parse_json(
      read_text_file(path, kListJson.max_bytes),
      path.string(),
      kListJson,
      DuplicateKeys::Refuse);
}

std::vector<LayerSensitivity>
layer_list(const Json& list, int default_group_size, const std::string& where) {
  if (!list.is_array()) {
    fail(
        ErrorKind::Corrupt,
        "[sensitivity_from_json] {}: 'layers' is missing or no list",
        where);
  }
  std::vector<LayerSensitivity> layers;
  std::set<std::pair<std::string, int>> names;
  for (const Json& entry : list) {
    layers.push_back(layer_sensitivity(entry, default_group_size, where));
    const LayerSensitivity& layer = layers.back();
    if (!names.insert({layer.name, layer.group_size}).second) {
      fail(
          ErrorKind::Corrupt,
          "[sensitivity_from_json] {}: layer '{}' occurs twice, expected once",
          where,
          layer.name);
    }
  }
  return layers;
}

} // namespace

const char* name_of(PlanMethod method) {
  return row_of(method).name;
}

PlanMethod plan_method_of(const std::string& name) {
  for (const MethodRow& row : kMethods) {
    if (name == row.name) {
      return row.method;
    }
  }
  fail(
      ErrorKind::InvalidInput,
      "[convert] --method {}: expected optiq, static or uniform.",
      name);
}

int count_high_bits(const Plan& plan) {
  return plan.candidate_bits.empty()
      ? 0
      : count_width(
            plan,
            *std::max_element(
                plan.candidate_bits.begin(), plan.candidate_bits.end()));
}

int count_low_bits(const Plan& plan) {
  return plan.candidate_bits.empty()
      ? 0
      : count_width(
            plan,
            *std::min_element(
                plan.candidate_bits.begin(), plan.candidate_bits.end()));
}

Json to_json(const Plan& plan) {
  return {
      {"kind", kPlanKind},
      {"schema_version", kSchemaVersion},
      {"method", name_of(plan.method)},
      {"candidate_bits", plan.candidate_bits},
      {"group_size", plan.group_size},
      {"target_bpw", or_null(plan.target_bpw)},
      {"target_bytes", or_null(plan.target_bytes)},
      {"achieved_bpw", finite(plan.achieved_bpw, "achieved_bpw")},
      {"file_bytes", plan.file_bytes},
      {"file_bpw", finite(plan.file_bpw, "file_bpw")},
      {"predicted_kl", finite(plan.predicted_kl, "predicted_kl")},
      {"prior_weight", or_null(plan.prior_weight)},
      {"measured_kl", or_null(plan.measured_kl)},
      {"per_layer", layers_to_json(plan.layers)}};
}

Json to_json(const Metadata& metadata) {
  const Plan& plan = metadata.plan;
  return {
      {"method", row_of(plan.method).file_name},
      {"schema_version", metadata.schema_version},
      {"tool_version", metadata.tool_version},
      {"base_model", metadata.base_model},
      {"reference", metadata.reference},
      {"target_bpw", or_null(plan.target_bpw)},
      {"target_bytes", or_null(plan.target_bytes)},
      {"achieved_bpw", finite(plan.achieved_bpw, "achieved_bpw")},
      {"file_bpw", finite(plan.file_bpw, "file_bpw")},
      {"file_bytes", plan.file_bytes},
      {"predicted_kl", finite(plan.predicted_kl, "predicted_kl")},
      {"prior_weight", or_null(plan.prior_weight)},
      {"measured_kl", or_null(plan.measured_kl)},
      {"n_high_bits", count_high_bits(plan)},
      {"n_low_bits", count_low_bits(plan)},
      {"threshold", 0.0}, // the original's constant; its readers expect it
      {"candidate_bits", plan.candidate_bits},
      {"group_size", plan.group_size},
      {"calibration", metadata.calibration},
      {"calibration_hash", metadata.calibration_hash},
      {"calibration_tokens", metadata.calibration_tokens},
      {"compute", metadata.compute},
      {"rounding", metadata.rounding},
      {"tuned_steps", metadata.tuned_steps},
      {"per_layer", layers_to_json(plan.layers)}};
}

Json to_json(const Sensitivity& sensitivity) {
  Json layers = Json::array();
  for (const LayerSensitivity& layer : sensitivity.layers) {
    layers.push_back(layer_to_json(layer));
  }
  Json json = {
      {"schema_version", kSchemaVersion},
      {"base_model", sensitivity.base_model},
      {"candidate_bits", sensitivity.candidate_bits},
      {"group_size", sensitivity.group_size},
      {"metric", kMetric},
      {"key", sensitivity.key},
      {"form", name_of(sensitivity.form)},
      {"layers", std::move(layers)}};
  for (const LayerSensitivity& layer : sensitivity.other_groups) {
    Json entry = layer_to_json(layer);
    entry["group_size"] = layer.group_size;
    json["other_groups"].push_back(std::move(entry));
  }
  return json;
}

Plan plan_from_json(const Json& json, const std::string& where) {
  require_object(json, where);
  const auto kind = required<std::string>(json, "kind", where);
  if (kind != kPlanKind) {
    fail(
        ErrorKind::Corrupt,
        "[plan_from_json] {}: 'kind' is '{}', expected '{}'. Is it a file of "
        "--save-plan?",
        where,
        kind,
        kPlanKind);
  }
  schema_version(json, where);
  return read_plan_members(json, where);
}

Metadata metadata_from_json(const Json& json, const std::string& where) {
  require_object(json, where);
  const Json& root =
      !json.contains("per_layer") && json.contains("optimization")
      ? required_object(json, "optimization", where)
      : json;
  Metadata metadata;
  metadata.schema_version = schema_version(root, where);
  const auto text = [&](const char* key) {
    return optional_or<std::string>(root, key, where, "");
  };
  metadata.tool_version = text("tool_version");
  metadata.base_model = text("base_model");
  metadata.reference = text("reference");
  metadata.calibration = text("calibration");
  metadata.calibration_hash = text("calibration_hash");
  metadata.calibration_tokens =
      optional_or<std::uint64_t>(root, "calibration_tokens", where, 0);
  metadata.compute = text("compute");
  metadata.rounding = text("rounding");
  metadata.tuned_steps = optional_or<int>(root, "tuned_steps", where, 0);
  metadata.plan = read_plan_members(root, where);
  return metadata;
}

Sensitivity sensitivity_from_json(const Json& json, const std::string& where) {
  require_object(json, where);
  schema_version(json, where);
  const auto metric = optional_or<std::string>(json, "metric", where, kMetric);
  if (metric != kMetric) {
    fail(
        ErrorKind::Unsupported,
        "[sensitivity_from_json] {}: 'metric' is '{}', expected '{}'",
        where,
        metric,
        kMetric);
  }
  Sensitivity sensitivity;
  sensitivity.base_model =
      optional_or<std::string>(json, "base_model", where, "");
  sensitivity.candidate_bits = candidates_from_json(json, where);
  sensitivity.group_size = one_of(
      kAffineGroupSizes,
      optional_or(json, "group_size", where, 64),
      "group_size",
      where);
  sensitivity.key = optional_or<std::string>(json, "key", where, "");
  sensitivity.form = form_in_file(
      optional_or<std::string>(json, "form", where, "exact"), where);
  if (!json.contains("layers")) {
    fail(
        ErrorKind::Corrupt,
        "[sensitivity_from_json] {}: 'layers' is missing or no list",
        where);
  }
  sensitivity.layers =
      layer_list(json.at("layers"), sensitivity.group_size, where);
  if (json.contains("other_groups")) {
    sensitivity.other_groups =
        layer_list(json.at("other_groups"), sensitivity.group_size, where);
  }
  return sensitivity;
}

std::optional<Metadata> read_metadata(const fs::path& directory) {
  for (const char* name : {"optiq/metadata.json", "optiq_metadata.json"}) {
    if (const auto json = read_if_there(directory / name)) {
      return metadata_from_json(*json, (directory / name).string());
    }
  }
  return std::nullopt;
}

std::optional<Sensitivity> read_sensitivity(const fs::path& directory) {
  const fs::path path = directory / "optiq" / "sensitivity.json";
  if (const auto json = read_if_there(path)) {
    return sensitivity_from_json(*json, path.string());
  }
  return std::nullopt;
}

} // namespace optiq::artifacts
