#include "optiq/adapters/adapter_files.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <numeric>
#include <set>
#include <utility>

#include "optiq/adapters/file_names_impl.h"
#include "optiq/adapters/peft_config_impl.h"
#include "optiq/adapters/read_tensors_impl.h"
#include "optiq/base/error.h"

namespace optiq::adapters {
namespace {

namespace fs = std::filesystem;
using artifacts::Json;
using artifacts::ModuleKind;

constexpr TensorNaming kPeftNaming{
    .prefix = "base_model.model.",
    .a = ".lora_A.weight",
    .b = ".lora_B.weight",
    .has_outputs_first = true};
constexpr TensorNaming kMlxNaming{.prefix = "", .a = ".lora_a", .b = ".lora_b"};

bool is_present(const fs::path& file) {
  std::error_code error;
  return fs::is_regular_file(file, error);
}

Json read_object(const fs::path& file) {
  Json json = artifacts::read_json_file(file);
  if (!json.is_object()) {
    fail(
        ErrorKind::Corrupt,
        "[open_adapter] {}: found {}, expected an object",
        file.string(),
        artifacts::describe(json));
  }
  return json;
}

bool is_ours(const Json& record) {
  return record.is_object() && record.contains(kRecordMember);
}

/** PEFT's names leave out what wraps a decoder: the record has the paths of the
 * model. */
void take_recorded_paths(AdapterFiles& files) {
  const Json& ours = files.record.at(kRecordMember);
  const auto scales = ours.find(kScalesMember);
  if (scales == ours.end() || !scales->is_object()) {
    return;
  }
  std::map<std::string, std::string> paths;
  for (const auto& [path, scale] : scales->items()) {
    paths.emplace(artifacts::short_name(artifacts::module_id(path)), path);
  }
  for (StoredUpdate& update : files.updates) {
    const auto found = paths.find(artifacts::short_name(update.id));
    if (found != paths.end()) {
      update.module = found->second;
    }
  }
}

/** The scale of a folder in mlx-lm's format. The original's readers ask its
 * record first, whose key has no default; adapter_config.json repeats it. */
float scale_of_mlx(
    const Json& config,
    const Json& record,
    const std::string& where) {
  if (record.is_object() && record.contains("scale")) {
    return artifacts::required<float>(record, "scale", kRecordFile);
  }
  return artifacts::required<float>(
      artifacts::required_object(config, "lora_parameters", where),
      "scale",
      where);
}

void read_mlx(
    const Json& config,
    const std::string& where,
    AdapterFiles& files) {
  const auto kind = artifacts::optional_or<std::string>(
      config, "fine_tune_type", where, "lora");
  if (kind != "lora") {
    fail(
        ErrorKind::Unsupported,
        "[open_adapter] {}: found fine_tune_type '{}', expected lora",
        where,
        kind);
  }
  RankAndScale settings{.scale = scale_of_mlx(config, files.record, where)};
  if (files.record
          .is_null()) { // the original's ranks differ from module to module
    settings.rank = artifacts::required<int>(
        artifacts::required_object(config, "lora_parameters", where),
        "rank",
        where);
  }
  files.format = files.record.is_null() ? "mlx-lm" : "mlx-optiq";
  files.tensors = files.directory / kMlxFile;
  files.updates = read_updates(
      files.tensors, kMlxNaming, [&](const std::string&) { return settings; });
}

void read_peft(
    const Json& config,
    const std::string& where,
    AdapterFiles& files) {
  const PeftConfig settings(config, where);
  files.format = is_ours(files.record) ? "optiq" : "PEFT";
  files.tensors = files.directory / kPeftFile;
  files.updates =
      read_updates(files.tensors, kPeftNaming, [&](const std::string& module) {
        return RankAndScale{
            settings.rank_of(module), settings.scale_of(module)};
      });
  if (is_ours(files.record)) {
    take_recorded_paths(files);
  }
}

// What may stand before a module's place in the decoder; a vision or audio
// tower, whose layers may have the same names, has other prefixes.
constexpr std::string_view kWrappers[] = {
    "",
    "model.",
    "language_model.",
    "language_model.model.",
    "model.language_model."};

bool is_of_decoder(const StoredUpdate& update) {
  const std::string place = artifacts::short_name(update.id);
  return std::any_of(
      std::begin(kWrappers),
      std::end(kWrappers),
      [&](std::string_view wrapper) {
        return update.module == std::string(wrapper) + place;
      });
}

/** Linears that may be adapted, by their short names. */
std::map<std::string, models::Module> linears_of(const models::Model& model) {
  std::map<std::string, models::Module> linears;
  for (const models::Module& module : model.modules()) {
    if (artifacts::kind_of(module.id.role) != ModuleKind::Embedding) {
      linears.emplace(artifacts::short_name(module.id), module);
    }
  }
  return linears;
}

/** Gives an update the path of the model's linear. */
void match(
    const AdapterFiles& files,
    const std::map<std::string, models::Module>& linears,
    StoredUpdate& update) {
  const auto found = linears.find(artifacts::short_name(update.id));
  if (found == linears.end() || !is_of_decoder(update)) {
    fail(
        ErrorKind::InvalidInput,
        "[open_adapter] {}: found an update of module '{}', which is no linear "
        "layer of this model. Was it trained on another model{}?",
        files.directory.string(),
        update.module,
        files.base_model.empty() ? "" : ", " + files.base_model);
  }
  const models::Module& linear = found->second;
  if (update.in != linear.matrix.in_features() ||
      update.out != linear.matrix.out_features()) {
    fail(
        ErrorKind::InvalidInput,
        "[open_adapter] {}: found an update [{}, {}] of module '{}', expected "
        "[{}, {}] as the model has it. Was it trained on another model{}?",
        files.directory.string(),
        update.out,
        update.in,
        update.module,
        linear.matrix.out_features(),
        linear.matrix.in_features(),
        files.base_model.empty() ? "" : ", " + files.base_model);
  }
  update.module = linear.name;
  update.id = linear.id;
}

/** Refuses two updates that end at one place of the decoder. */
void require_distinct(const AdapterFiles& files) {
  std::set<std::string> places;
  for (const StoredUpdate& update : files.updates) {
    if (!places.insert(artifacts::short_name(update.id)).second) {
      fail(
          ErrorKind::Corrupt,
          "[open_adapter] {}: found two updates of module '{}', expected one",
          files.directory.string(),
          artifacts::short_name(update.id));
    }
  }
}

} // namespace

std::uint64_t AdapterFiles::parameters() const {
  return std::accumulate(
      updates.begin(),
      updates.end(),
      std::uint64_t{0},
      [](std::uint64_t sum, const StoredUpdate& update) {
        return sum + update.parameters();
      });
}

bool is_adapter(const fs::path& directory) {
  return is_present(directory / kConfigFile);
}

AdapterFiles open_adapter(const fs::path& directory) {
  const fs::path config_file = directory / kConfigFile;
  if (!is_adapter(directory)) {
    fail(
        ErrorKind::NotFound,
        "[open_adapter] {}: found no {}, expected the folder of an adapter",
        directory.string(),
        kConfigFile);
  }
  const Json config = read_object(config_file);
  const std::string where = config_file.string();
  AdapterFiles files{.directory = directory};
  files.base_model = artifacts::optional_or<std::string>(
      config, "base_model_name_or_path", where, "");
  if (is_present(directory / kRecordFile)) {
    files.record = read_object(directory / kRecordFile);
  }
  if (is_present(directory / kPeftFile)) {
    read_peft(config, where, files);
  } else if (is_present(directory / kMlxFile)) {
    read_mlx(config, where, files);
  } else {
    fail(
        ErrorKind::NotFound,
        "[open_adapter] {}: found neither {} nor {}, expected one of them (an "
        "adapter_model.bin is not read: save it with safe_serialization)",
        directory.string(),
        kPeftFile,
        kMlxFile);
  }
  require_distinct(files);
  return files;
}

AdapterFiles open_adapter(
    const fs::path& directory,
    const models::Model& model) {
  AdapterFiles files = open_adapter(directory);
  const auto linears = linears_of(model);
  for (StoredUpdate& update : files.updates) {
    match(files, linears, update);
  }
  return files;
}

Json record_of(const AdapterFiles& files) {
  if (!is_ours(files.record)) {
    return {};
  }
  Json record = files.record.at(kRecordMember);
  if (record.is_object()) {
    record.erase(kScalesMember);
  }
  return record;
}

std::vector<AdapterUpdate> load_updates(const AdapterFiles& files) {
  std::vector<AdapterUpdate> updates;
  for (const StoredUpdate& stored : files.updates) {
    updates.push_back(stored.load(stored.module));
  }
  return updates;
}

} // namespace optiq::adapters
