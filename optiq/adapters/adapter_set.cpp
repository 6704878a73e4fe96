#include "optiq/adapters/adapter_set.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>

#include <mlx/ops.h>

#include "optiq/adapters/adapter_files.h"
#include "optiq/base/error.h"
#include "optiq/io/array.h"

namespace optiq::adapters {
namespace {

namespace fs = std::filesystem;

constexpr const char* kBase = "base";

/** One summand of a selection. */
struct Term {
  std::string id;
  double weight = 1.0;
};

[[noreturn]] void fail_selection(const std::string& selection) {
  fail(
      ErrorKind::InvalidInput,
      "[AdapterSet] found '{}', expected the name of an adapter, or names with "
      "weights as in a*0.5+b",
      selection);
}

Term parse_term(std::string_view text, const std::string& selection) {
  const std::size_t star = text.find('*');
  Term term{.id = std::string(text.substr(0, star))};
  if (star != std::string_view::npos) {
    const std::string_view number = text.substr(star + 1);
    const char* const last = number.data() + number.size();
    const auto [end, error] = std::from_chars(number.data(), last, term.weight);
    if (error != std::errc() || end != last || !std::isfinite(term.weight)) {
      fail_selection(selection);
    }
  }
  if (!is_adapter_id(term.id)) {
    fail_selection(selection);
  }
  return term;
}

/** No term for the model alone. */
std::vector<Term> parse_selection(const std::string& selection) {
  std::vector<Term> terms;
  if (selection.empty() || selection == kBase) {
    return terms;
  }
  std::string_view rest(selection);
  while (true) {
    const std::size_t plus = rest.find('+');
    terms.push_back(parse_term(rest.substr(0, plus), selection));
    if (plus == std::string_view::npos) {
      return terms;
    }
    rest.remove_prefix(plus + 1);
  }
}

/** What changes when somebody writes another adapter into the same place. */
struct Stamp {
  bool operator==(const Stamp&) const = default;

  fs::file_time_type written;
  std::uintmax_t bytes = 0;
};

Stamp stamp_of(const AdapterFiles& files) {
  return {fs::last_write_time(files.tensors), fs::file_size(files.tensors)};
}

MountedAdapter describe(const std::string& id, const AdapterFiles& files) {
  const auto [least, largest] = std::minmax_element(
      files.updates.begin(),
      files.updates.end(),
      [](const StoredUpdate& left, const StoredUpdate& right) {
        return left.rank < right.rank;
      });
  return {
      .id = id,
      .directory = files.directory,
      .format = files.format,
      .base_model = files.base_model,
      .modules = files.updates.size(),
      .least_rank = least->rank,
      .largest_rank = largest->rank,
      .parameters = files.parameters()};
}

std::size_t bytes_of(const nn::Adapter& adapter) {
  std::size_t bytes = 0;
  for (const auto& [module, update] : adapter.updates) {
    bytes += update.a.nbytes() + update.b.nbytes();
  }
  return bytes;
}

/** The active adapter of this thread: read where generation starts, and no
 * later. */
std::shared_ptr<const nn::Adapter>& active() {
  thread_local std::shared_ptr<const nn::Adapter> adapter;
  return adapter;
}

} // namespace

struct AdapterSet::State {
  struct Known {
    MountedAdapter facts;
    Stamp stamp;
    std::uint64_t version = 0; // a new one whenever the stamp is another
  };
  struct Resident {
    std::shared_ptr<const nn::Adapter> adapter;
    std::size_t bytes = 0;
    std::uint64_t last_used = 0;
  };

  std::shared_ptr<const models::Model> model;
  AdapterSetOptions options;
  /** Guards all below. Held while an adapter is read, so that threads that ask
   * for the same one read it once. */
  mutable std::mutex mutex;
  std::map<std::string, Known> known;
  std::map<std::string, Resident> residents; // by key, stacks included
  std::size_t resident_bytes = 0;
  std::uint64_t clock = 0;
  std::uint64_t versions = 0;

  Known& at(const std::string& id) {
    const auto found = known.find(id);
    if (found == known.end()) {
      std::string names;
      for (const auto& [name, entry] : known) {
        names += (names.empty() ? "" : ", ") + name;
      }
      fail(
          ErrorKind::NotFound,
          "[AdapterSet] found no adapter '{}', expected one of: {}",
          id,
          names.empty() ? "none is mounted" : names);
    }
    return found->second;
  }

  static std::string key_of(
      const std::vector<Term>& terms,
      const std::vector<const Known*>& entries) {
    std::string key;
    for (std::size_t i = 0; i < terms.size(); ++i) {
      key += fmt::format(
          "{}{}#{}*{}",
          i == 0 ? "" : "+",
          terms[i].id,
          entries[i]->version,
          terms[i].weight);
    }
    return key;
  }

  /** The updates of a mounted adapter, as its files are now. */
  std::vector<AdapterUpdate> read(Known& entry) {
    const AdapterFiles files = open_adapter(entry.facts.directory, *model);
    if (const Stamp stamp = stamp_of(files); stamp != entry.stamp) {
      entry = {describe(entry.facts.id, files), stamp, ++versions};
    }
    return load_updates(files);
  }

  nn::Adapter on_device(std::vector<AdapterUpdate> updates) const {
    const bool is_exact = options.compute == kernels::Compute::Exact;
    const mx::Dtype dtype = is_exact ? mx::float32 : mx::bfloat16;
    const auto upload = [&](const mx::array& host) {
      return model->device().upload(io::materialize(mx::astype(host, dtype)));
    };
    nn::Adapter adapter;
    for (AdapterUpdate& update : updates) {
      adapter.updates.emplace(
          std::move(update.module),
          nn::LowRank{
              .a = upload(update.a),
              .b = upload(update.b),
              .scale = update.scale});
    }
    return adapter;
  }

  /** Lets go of adapters that nobody uses until so many bytes are free. */
  void make_room(std::size_t bytes, const std::string& for_whom) {
    while (resident_bytes + bytes > options.max_resident_bytes) {
      auto oldest = residents.end();
      for (auto at = residents.begin(); at != residents.end(); ++at) {
        const bool is_idle = at->second.adapter.use_count() == 1;
        if (is_idle &&
            (oldest == residents.end() ||
             at->second.last_used < oldest->second.last_used)) {
          oldest = at;
        }
      }
      if (oldest == residents.end()) {
        fail(
            ErrorKind::Exhausted,
            "[AdapterSet] adapter {}: found {} of {} bytes taken by adapters in "
            "use, expected room for {}. Ask again later, or allow more",
            for_whom,
            resident_bytes,
            options.max_resident_bytes,
            bytes);
      }
      forget(oldest);
    }
  }

  void forget(std::map<std::string, Resident>::iterator resident) {
    resident_bytes -= resident->second.bytes;
    residents.erase(resident);
  }

  std::size_t bytes_of_terms(const std::vector<const Known*>& entries) const {
    std::uint64_t parameters = 0;
    for (const Known* entry : entries) {
      parameters += entry->facts.parameters;
    }
    return parameters * (options.compute == kernels::Compute::Exact ? 4 : 2);
  }

  std::shared_ptr<const nn::Adapter> load(
      const std::vector<Term>& terms,
      const std::vector<Known*>& entries) {
    const std::vector<const Known*> readable(entries.begin(), entries.end());
    std::vector<WeightedUpdates> parts;
    for (std::size_t i = 0; i < terms.size(); ++i) {
      parts.push_back({read(*entries[i]), terms[i].weight});
    }
    const std::string key = key_of(terms, readable);
    make_room(bytes_of_terms(readable), key);
    const bool is_one = parts.size() == 1 && parts.front().weight == 1.0;
    auto adapter = std::make_shared<nn::Adapter>(
        on_device(is_one ? std::move(parts.front().updates) : sum_of(parts)));
    adapter->key = key;
    const std::size_t bytes = bytes_of(*adapter);
    residents[key] = {adapter, bytes, ++clock};
    resident_bytes += bytes;
    return adapter;
  }
};

AdapterSet::AdapterSet(
    std::shared_ptr<const models::Model> model,
    AdapterSetOptions options)
    : state_(std::make_unique<State>()) {
  state_->model = std::move(model);
  state_->options = options;
}

AdapterSet::~AdapterSet() = default;

std::shared_ptr<const nn::Adapter> AdapterSet::find(
    const std::string& selection) {
  const std::vector<Term> terms = parse_selection(selection);
  if (terms.empty()) {
    return nullptr;
  }
  const std::lock_guard<std::mutex> lock(state_->mutex);
  std::vector<State::Known*> entries;
  entries.reserve(terms.size());
  for (const Term& term : terms) {
    entries.push_back(&state_->at(term.id));
  }
  const auto found = state_->residents.find(
      State::key_of(terms, {entries.begin(), entries.end()}));
  if (found == state_->residents.end()) {
    return state_->load(terms, entries);
  }
  found->second.last_used = ++state_->clock;
  return found->second.adapter;
}

bool is_adapter_id(std::string_view name) {
  const auto is_of_id = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
        (c >= '0' && c <= '9') ||
        std::string_view("._-/").find(c) != std::string_view::npos;
  };
  return !name.empty() && name != kBase &&
      std::all_of(name.begin(), name.end(), is_of_id);
}

void mount_adapter(
    AdapterSet& set,
    const std::string& id,
    const fs::path& directory) {
  AdapterSet::State& state = *set.state_;
  if (!is_adapter_id(id)) {
    fail(
        ErrorKind::InvalidInput,
        "[mount_adapter] found the name '{}', expected letters, digits and "
        "._-/, and not '{}', which is the model alone",
        id,
        kBase);
  }
  {
    const std::lock_guard<std::mutex> lock(state.mutex);
    if (state.known.contains(id)) {
      fail(
          ErrorKind::InvalidInput,
          "[mount_adapter] found that '{}' is mounted from {}, expected a new "
          "name",
          id,
          state.known.at(id).facts.directory.string());
    }
    const AdapterFiles files = open_adapter(directory, *state.model);
    state.known[id] = {describe(id, files), stamp_of(files), ++state.versions};
  }
  try {
    set.find(id); // its values are checked, too
  } catch (...) {
    unmount_adapter(set, id);
    throw;
  }
}

void unmount_adapter(AdapterSet& set, const std::string& id) {
  AdapterSet::State& state = *set.state_;
  const std::lock_guard<std::mutex> lock(state.mutex);
  const auto resident =
      state.residents.find(AdapterSet::State::key_of({{id}}, {&state.at(id)}));
  if (resident != state.residents.end()) {
    state.forget(resident);
  }
  state.known.erase(id);
}

std::vector<MountedAdapter> list_adapters(const AdapterSet& set) {
  const AdapterSet::State& state = *set.state_;
  const std::lock_guard<std::mutex> lock(state.mutex);
  std::vector<MountedAdapter> list;
  for (const auto& [id, entry] : state.known) {
    list.push_back(entry.facts);
    const auto resident =
        state.residents.find(AdapterSet::State::key_of({{id}}, {&entry}));
    if (resident != state.residents.end()) {
      list.back().resident_bytes = resident->second.bytes;
    }
  }
  return list;
}

ResidentAdapters resident_adapters(const AdapterSet& set) {
  const AdapterSet::State& state = *set.state_;
  const std::lock_guard<std::mutex> lock(state.mutex);
  return {state.residents.size(), state.resident_bytes};
}

AdapterActivation::AdapterActivation(
    AdapterSet& set,
    const std::string& selection)
    : before_(std::exchange(active(), set.find(selection))) {}

AdapterActivation::~AdapterActivation() {
  active() = std::move(before_);
}

std::shared_ptr<const nn::Adapter> active_adapter() {
  return active();
}

} // namespace optiq::adapters
