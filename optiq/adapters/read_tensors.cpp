#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>

#include <fmt/ranges.h>
#include <mlx/ops.h>

#include "optiq/adapters/read_tensors_impl.h"
#include "optiq/base/error.h"
#include "optiq/io/array.h"
#include "optiq/io/safetensors.h"

namespace optiq::adapters {
namespace {

namespace fs = std::filesystem;
using io::TensorInfo;

/** Both halves of an update, as far as the file has them. */
struct Pair {
  std::optional<TensorInfo> a;
  std::optional<TensorInfo> b;
};

/** A file, and who reads it. */
struct Reader {
  std::shared_ptr<const io::SafetensorsFile> file;
  std::string name;
  TensorNaming naming;
};

std::string shape_of(const TensorInfo& tensor) {
  return fmt::format("[{}]", fmt::join(tensor.shape, ", "));
}

bool is_float(const TensorInfo& tensor) {
  return tensor.unreadable == nullptr &&
      (tensor.dtype == mx::float32 || tensor.dtype == mx::float16 ||
       tensor.dtype == mx::bfloat16);
}

/** "<prefix><module><suffix>" -> module, or nothing. */
std::optional<std::string> module_in(
    std::string_view tensor,
    std::string_view prefix,
    std::string_view suffix) {
  if (tensor.size() <= prefix.size() + suffix.size() ||
      !tensor.starts_with(prefix) || !tensor.ends_with(suffix)) {
    return std::nullopt;
  }
  tensor.remove_prefix(prefix.size());
  tensor.remove_suffix(suffix.size());
  return std::string(tensor);
}

std::map<std::string, Pair> pair_up(const Reader& reader) {
  const TensorNaming& naming = reader.naming;
  std::map<std::string, Pair> pairs;
  for (const TensorInfo& tensor : reader.file->tensors()) {
    if (const auto module = module_in(tensor.name, naming.prefix, naming.a)) {
      pairs[*module].a = tensor;
    } else if (
        const auto of_b = module_in(tensor.name, naming.prefix, naming.b)) {
      pairs[*of_b].b = tensor;
    } else {
      fail(
          ErrorKind::Unsupported,
          "[open_adapter] {}: found tensor '{}', expected names as in {}MODULE{} "
          "and {}MODULE{}: low-rank updates of linears alone",
          reader.name,
          tensor.name,
          naming.prefix,
          naming.a,
          naming.prefix,
          naming.b);
    }
  }
  if (pairs.empty()) {
    fail(
        ErrorKind::Corrupt,
        "[open_adapter] {}: found no tensor, expected low-rank updates",
        reader.name);
  }
  return pairs;
}

/** The half that must be there, a float matrix. */
const TensorInfo& require_half(
    const Reader& reader,
    const std::string& module,
    const std::optional<TensorInfo>& half,
    std::string_view suffix) {
  if (!half) {
    fail(
        ErrorKind::Corrupt,
        "[open_adapter] {}: module '{}' has one half of an update, expected "
        "tensor '{}{}{}' too",
        reader.name,
        module,
        reader.naming.prefix,
        module,
        suffix);
  }
  if (!is_float(*half) || half->shape.size() != 2 || half->shape[0] == 0 ||
      half->shape[1] == 0) {
    fail(
        ErrorKind::Unsupported,
        "[open_adapter] {}: found tensor '{}' of shape {}{}, expected a matrix "
        "of F32, F16 or BF16: updates of experts are not supported",
        reader.name,
        half->name,
        shape_of(*half),
        is_float(*half) ? "" : " of another type");
  }
  return *half;
}

/** A matrix in float32, transposed or not. */
mx::array load_matrix(
    const Reader& reader,
    const TensorInfo& tensor,
    bool is_transposed) {
  mx::array values = mx::astype(reader.file->load(tensor), mx::float32);
  if (!mx::all(mx::isfinite(values)).item<bool>()) {
    fail(
        ErrorKind::Corrupt,
        "[load_updates] {}: tensor '{}' has values that are not finite, "
        "expected numbers. Did the training diverge?",
        reader.name,
        tensor.name);
  }
  if (is_transposed) {
    values = mx::transpose(values);
  }
  return io::materialize(values);
}

StoredUpdate make_update(
    const Reader& reader,
    const std::string& module,
    const Pair& pair,
    const RankAndScale& wanted) {
  const TensorNaming& naming = reader.naming;
  const TensorInfo& a = require_half(reader, module, pair.a, naming.a);
  const TensorInfo& b = require_half(reader, module, pair.b, naming.b);
  const bool turned = naming.has_outputs_first;
  const int rank = a.shape[turned ? 0 : 1];
  const int rank_of_b = b.shape[turned ? 1 : 0];
  if (rank != rank_of_b || (wanted.rank != 0 && wanted.rank != rank)) {
    fail(
        ErrorKind::Corrupt,
        "[open_adapter] {}: found tensors '{}' {} and '{}' {}, of ranks {} and "
        "{}, expected {}",
        reader.name,
        a.name,
        shape_of(a),
        b.name,
        shape_of(b),
        rank,
        rank_of_b,
        wanted.rank != 0
            ? fmt::format("rank {} as adapter_config.json says", wanted.rank)
            : "equal ranks");
  }
  if (!std::isfinite(wanted.scale)) {
    fail(
        ErrorKind::Corrupt,
        "[open_adapter] {}: the settings give module '{}' the scale {}, "
        "expected a finite number",
        reader.name,
        module,
        wanted.scale);
  }
  StoredUpdate update{
      .module = module,
      .id = artifacts::module_id(module),
      .rank = rank,
      .in = a.shape[turned ? 1 : 0],
      .out = b.shape[turned ? 0 : 1],
      .scale = wanted.scale,
      .load = {}};
  update.load =
      [reader, a, b, turned, scale = wanted.scale](const std::string& name) {
        return AdapterUpdate{
            .module = name,
            .a = load_matrix(reader, a, !turned),
            .b = load_matrix(reader, b, turned),
            .scale = scale};
      };
  return update;
}

} // namespace

std::vector<StoredUpdate> read_updates(
    const fs::path& file,
    const TensorNaming& naming,
    const std::function<RankAndScale(const std::string& module)>& settings_of) {
  const Reader reader{
      std::make_shared<const io::SafetensorsFile>(
          io::SafetensorsFile::open(file)),
      file.string(),
      naming};
  std::vector<StoredUpdate> updates;
  for (const auto& [module, pair] : pair_up(reader)) {
    updates.push_back(make_update(reader, module, pair, settings_of(module)));
  }
  std::stable_sort(
      updates.begin(),
      updates.end(),
      [](const StoredUpdate& left, const StoredUpdate& right) {
        const auto place = [](const artifacts::ModuleId& id) {
          return std::tuple(id.layer < 0, id.layer);
        };
        return place(left.id) < place(right.id);
      });
  return updates;
}

} // namespace optiq::adapters
