#include "optiq/io/hub/resolve.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <initializer_list>
#include <regex>
#include <string_view>
#include <system_error>

#include "optiq/base/error.h"
#include "optiq/base/file.h"
#include "optiq/io/gguf/split.h"
#include "optiq/io/hub/cache.h"
#include "optiq/io/hub/download.h"
#include "optiq/io/hub/listing.h"
#include "optiq/io/weight_files.h"

namespace optiq::io {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxTokenFile = 64u << 10;
constexpr int kListingAttempts = 4;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/** The text with $NAME and ${NAME} replaced where there is such a variable, as
 * Python's os.path.expandvars does. */
std::string with_variables(const std::string& text) {
  static const std::regex kVariable(R"(\$(\w+)|\$\{([^}]*)\})");
  std::string result;
  auto rest = text.begin();
  for (std::sregex_iterator it(text.begin(), text.end(), kVariable), end;
       it != end;
       ++it) {
    const std::string name = (*it)[1].matched ? it->str(1) : it->str(2);
    result.append(rest, (*it)[0].first);
    const char* value = std::getenv(name.c_str());
    result += value == nullptr ? it->str() : std::string(value);
    rest = (*it)[0].second;
  }
  return result.append(rest, text.end());
}

/** A path with a leading ~ and variables replaced. */
fs::path to_path(const std::string& text) {
  return with_variables(
      text == "~" || text.starts_with("~/") ? variable("HOME") + text.substr(1)
                                            : text);
}

fs::path hub_home() {
  if (const std::string home = variable("HF_HOME"); !home.empty()) {
    return to_path(home);
  }
  const std::string cache = variable("XDG_CACHE_HOME");
  return (cache.empty() ? to_path("~/.cache") : to_path(cache)) / "huggingface";
}

bool is_on(std::string value) {
  std::transform(
      value.begin(), value.end(), value.begin(), [](unsigned char c) {
        return static_cast<char>(std::toupper(c));
      });
  return value == "1" || value == "ON" || value == "YES" || value == "TRUE";
}

std::string trimmed(const std::string& text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  const std::size_t last = text.find_last_not_of(" \t\r\n");
  return first == std::string::npos ? "" : text.substr(first, last - first + 1);
}

std::string find_token() {
  for (const char* name : {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}) {
    if (std::string token = trimmed(variable(name)); !token.empty()) {
      return token;
    }
  }
  const std::string named = variable("HF_TOKEN_PATH");
  const fs::path path = named.empty() ? hub_home() / "token" : to_path(named);
  std::error_code error; // no such file: no token
  return fs::is_regular_file(path, error)
      ? trimmed(read_text_file(path, kMaxTokenFile))
      : "";
}

/** Percent-encodes all but unreserved characters and those of `keep`. */
std::string url_encoded(const std::string& text, std::string_view keep) {
  std::string result;
  for (const char c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) ||
        std::string_view("-._~").find(c) != std::string_view::npos ||
        keep.find(c) != std::string_view::npos) {
      result += c;
    } else {
      result += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return result;
}

bool is_file(const fs::path& path) {
  std::error_code error; // absent
  return fs::is_regular_file(path, error); // follows links
}

/** Whether config and all weights of a model directory are there. */
bool has_weights(const fs::path& snapshot) {
  if (!is_file(snapshot / "config.json")) {
    return false;
  }
  const WeightFiles files = find_weight_files(snapshot);
  return !files.names.empty() && files.missing.empty();
}

bool has_tokenizer(const fs::path& snapshot) {
  return is_file(snapshot / "tokenizer.json") ||
      is_file(snapshot / "tokenizer.model");
}

std::vector<fs::path> gguf_files(const fs::path& snapshot) {
  std::vector<fs::path> files;
  std::error_code error; // an unreadable folder has no files
  for (const fs::directory_entry& entry :
       fs::recursive_directory_iterator(snapshot, error)) {
    if (entry.path().extension() == ".gguf" && entry.is_regular_file() &&
        !is_later_gguf_part(entry.path().string())) {
      files.push_back(entry.path());
    }
  }
  return files;
}

/** A GGUF file, by its first part where it has several; nothing when one is
 * missing. */
std::optional<fs::path> whole_gguf(const fs::path& file) {
  const auto part = parse_gguf_part(file.string());
  if (!part) {
    return is_file(file) ? std::optional(file) : std::nullopt;
  }
  for (int number = 1; number <= part->count; ++number) {
    if (!is_file(gguf_part_path(*part, number))) {
      return std::nullopt;
    }
  }
  return gguf_part_path(*part, 1);
}

/** The model inside a snapshot; nothing when a part of it is missing. */
std::optional<fs::path> model_in(const fs::path& snapshot, const HubId& id) {
  if (!id.file.empty()) {
    return whole_gguf(snapshot / id.file);
  }
  if (has_weights(snapshot)) {
    return snapshot;
  }
  const std::vector<fs::path> files = gguf_files(snapshot);
  return files.size() == 1 ? whole_gguf(files.front()) : std::nullopt;
}

/** One model being fetched. */
class Fetch {
 public:
  Fetch(
      const HubId& id,
      const HubSettings& settings,
      const ProgressSink& progress)
      : id_(id),
        settings_(settings),
        progress_(progress),
        cache_(settings.cache) {}

  ResolvedModel run() {
    const std::optional<ResolvedModel> cached = cached_model();
    if (settings_.offline) {
      return cached ? *cached : fail_offline();
    }
    if (cached && is_commit(id_.revision) &&
        (!fs::is_directory(cached->path) || has_tokenizer(cached->path))) {
      return *cached;
    }
    HttpClient client(
        origin_of(settings_.endpoint), settings_.token, settings_.ca_file);
    HubListing listing;
    try {
      listing = ask(client, cached ? 1 : kListingAttempts);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Io || !cached) {
        throw;
      }
      ResolvedModel result = *cached;
      result.notices.push_back(fmt::format(
          "the hub does not answer ({}); using the cached revision {} of {}",
          error.what(),
          result.commit.substr(0, 12),
          id_.repo));
      return result;
    }
    return download(client, listing);
  }

 private:
  std::optional<ResolvedModel> cached_model() const {
    const auto commit = cache_.commit_of(id_);
    if (!commit) {
      return std::nullopt;
    }
    const auto path = model_in(cache_.snapshot(id_.repo, *commit), id_);
    if (!path) {
      return std::nullopt;
    }
    return ResolvedModel{.path = *path, .id = id_, .commit = *commit};
  }

  [[noreturn]] ResolvedModel fail_offline() const {
    fail(
        ErrorKind::NotFound,
        "[fetch_model] {}: the network is not to be used (HF_HUB_OFFLINE, or "
        "the program's choice), and {} does not hold the whole model. Allow "
        "it, or run optiq pull {} where there is a network",
        id_.text(),
        cache_.repo_folder(id_.repo).string(),
        id_.text());
  }

  HubListing ask(HttpClient& client, int n_attempts) const {
    const std::string url = fmt::format(
        "{}/api/models/{}/revision/{}?blobs=true",
        settings_.endpoint,
        id_.repo,
        url_encoded(id_.revision, ""));
    HubListing listing = parse_listing(
        get_text(client, url, n_attempts, settings_.on_wait), url);
    if (is_commit(id_.revision) && listing.commit != id_.revision) {
      fail(
          ErrorKind::Corrupt,
          "[fetch_model] {}: found commit {}, expected the one asked for",
          url,
          listing.commit);
    }
    return listing;
  }

  ResolvedModel download(HttpClient& client, const HubListing& listing) {
    const HubSelection selection = select_files(listing, id_);
    const fs::path snapshot = cache_.snapshot(id_.repo, listing.commit);
    require_disk(listing.commit, selection.side_files);
    // Small files first: whoever sees all weights also sees the rest.
    fetch_all(client, listing.commit, selection.side_files);
    const std::vector<HubFile> weights = selection.gguf.empty()
        ? weights_of(listing, id_, snapshot / kWeightIndexName)
        : selection.gguf;
    require_disk(listing.commit, weights);
    fetch_all(client, listing.commit, weights);
    cache_.write_ref(id_, listing.commit);
    const auto path = model_in(
        snapshot,
        selection.gguf.empty()
            ? id_
            : HubId{id_.repo, id_.revision, selection.gguf.front().path});
    if (!path) {
      fail(
          ErrorKind::Corrupt,
          "[fetch_model] {}: every file was fetched, but {} holds no whole "
          "model. Is another process deleting it?",
          id_.text(),
          snapshot.string());
    }
    return {.path = *path, .id = id_, .commit = listing.commit};
  }

  void fetch_all(
      HttpClient& client,
      const std::string& commit,
      const std::vector<HubFile>& files) {
    for (const HubFile& file : files) {
      if (cache_.holds_itself(id_.repo, commit, file.path, file.bytes)) {
        done_ += file.bytes;
        continue;
      }
      const std::uint64_t before = done_;
      const auto report = [&](std::uint64_t bytes, const std::string& detail) {
        settings_.on_wait();
        if (progress_) {
          progress_({"download", before + bytes, total_, detail});
        }
      };
      download_blob(
          client,
          {.file = file,
           .url = fmt::format(
               "{}/{}/resolve/{}/{}",
               settings_.endpoint,
               id_.repo,
               commit,
               url_encoded(file.path, "/")),
           .commit = commit,
           .blob = cache_.blob(id_.repo, file.hash),
           .lock = cache_.lock(id_.repo, file.hash)},
          report);
      cache_.link(id_.repo, commit, file.path, file.hash);
      done_ += file.bytes;
    }
  }

  /** Counts files that are to come; refuses, with numbers, what the disk cannot
   * hold. */
  void require_disk(
      const std::string& commit,
      const std::vector<HubFile>& files) {
    // No wrap: parse_listing bounds the sum over the repository.
    std::uint64_t needed = 0;
    for (const HubFile& file : files) {
      total_ += file.bytes;
      const fs::path blob = cache_.blob(id_.repo, file.hash);
      if (!is_file(blob) &&
          !cache_.holds_itself(id_.repo, commit, file.path, file.bytes)) {
        needed += file.bytes - std::min(file.bytes, unfinished_bytes(blob));
      }
    }
    const std::uint64_t available = free_disk_bytes(settings_.cache);
    if (needed > available) {
      fail(
          ErrorKind::Exhausted,
          "[fetch_model] {}: needs {} bytes in {}, found {} free. Free some "
          "space (optiq list, optiq rm), or set HF_HOME to another disk",
          id_.text(),
          needed,
          settings_.cache.string(),
          available);
    }
  }

  const HubId& id_;
  const HubSettings& settings_;
  const ProgressSink& progress_;
  HubCache cache_;
  std::uint64_t done_ = 0;
  std::uint64_t total_ = 0;
};

} // namespace

HubSettings hub_settings() {
  HubSettings settings;
  if (std::string endpoint = trimmed(variable("HF_ENDPOINT"));
      !endpoint.empty()) {
    while (endpoint.ends_with('/')) {
      endpoint.pop_back();
    }
    settings.endpoint = endpoint;
  }
  settings.token = find_token();
  settings.ca_file = variable("SSL_CERT_FILE");
  settings.cache = hub_home() / "hub";
  for (const char* name : {"HUGGINGFACE_HUB_CACHE", "HF_HUB_CACHE"}) {
    if (const std::string cache = variable(name); !cache.empty()) {
      settings.cache = to_path(cache);
    }
  }
  settings.cache = fs::absolute(settings.cache).lexically_normal();
  const std::string offline = variable("HF_HUB_OFFLINE");
  settings.offline =
      is_on(offline.empty() ? variable("TRANSFORMERS_OFFLINE") : offline);
  return settings;
}

ResolvedModel fetch_model(
    const HubId& id,
    const HubSettings& settings,
    const ProgressSink& progress) {
  return Fetch(id, settings, progress).run();
}

ResolvedModel resolve_model(
    const std::string& model,
    const HubSettings& settings,
    const ProgressSink& progress) {
  std::error_code error; // an unreadable path is no local model
  if (fs::exists(model, error)) {
    return {.path = model};
  }
  auto id = parse_hub_id(model);
  if (!id) {
    id = parse_cached_id(model);
    if (id && !HubCache(settings.cache).has(id->repo)) {
      id.reset();
    }
  }
  if (!id) {
    fail(
        ErrorKind::NotFound,
        "[resolve_model] {}: no such file or directory, and not a name on the "
        "hub, expected DIR, FILE.gguf or org/name[@revision][:file.gguf]",
        model);
  }
  try {
    return fetch_model(*id, settings, progress);
  } catch (const Error& failure) {
    if (failure.kind() != ErrorKind::NotFound &&
        failure.kind() != ErrorKind::Denied &&
        failure.kind() != ErrorKind::Io) {
      throw;
    }
    fail(
        failure.kind(),
        "[resolve_model] {}: no such file or directory here; as a name on the "
        "hub: {}",
        model,
        failure.what());
  }
}

} // namespace optiq::io
