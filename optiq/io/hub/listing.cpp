#include "optiq/io/hub/listing.h"

#include <algorithm>
#include <set>

#include "optiq/artifacts/json.h"
#include "optiq/base/error.h"
#include "optiq/io/gguf/split.h"
#include "optiq/io/model_directory.h"
#include "optiq/io/weight_files.h"

namespace optiq::io {
namespace {

using artifacts::Json;

constexpr std::uint64_t kMaxFileBytes = std::uint64_t{1} << 50;

[[noreturn]] void fail_field(
    const std::string& where,
    const std::string& name,
    const std::string& expected) {
  fail(
      ErrorKind::Corrupt,
      "[parse_listing] {}: {}: expected {}. Is this a Hugging Face hub?",
      where,
      name,
      expected);
}

std::string text_field(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>()
                                                     : std::string();
}

HubFile parse_file(const Json& json, const std::string& where) {
  if (!json.is_object()) {
    fail_field(where, "siblings", "objects");
  }
  HubFile file{.path = text_field(json, "rfilename")};
  if (!is_safe_relative_path(file.path)) {
    fail(
        ErrorKind::Corrupt,
        "[parse_listing] {}: found a file named {}, expected a path inside "
        "the repository",
        where,
        Json(file.path).dump(-1, ' ', true, Json::error_handler_t::replace));
  }
  const auto lfs = json.find("lfs");
  const bool is_lfs = lfs != json.end() && lfs->is_object();
  const Json& source = is_lfs ? *lfs : json;
  const auto size = source.find("size");
  if (size == source.end() || !size->is_number_unsigned() ||
      size->get<std::uint64_t>() > kMaxFileBytes) {
    fail_field(where, file.path + ", size", "a number of bytes");
  }
  file.bytes = size->get<std::uint64_t>();
  file.hash = text_field(source, is_lfs ? "sha256" : "blobId");
  if (!is_hex(file.hash, is_lfs ? 64 : 40)) {
    fail_field(
        where,
        file.path + (is_lfs ? ", sha256" : ", blobId"),
        is_lfs ? "64 hexadecimal digits" : "40 hexadecimal digits");
  }
  return file;
}

bool is_top_level(const std::string& path) {
  return path.find('/') == std::string::npos;
}

/** Artifacts of a converted model, ours and the Python original's. */
bool is_artifact(const std::string& path) {
  return path.starts_with("optiq/") || path == "optiq_metadata.json" ||
      path == "kv_config.json";
}

std::string names_of(const std::vector<HubFile>& files) {
  std::string names;
  for (const HubFile& file : files) {
    names += (names.empty() ? "" : ", ") + file.path;
  }
  return names;
}

std::vector<HubFile> gguf_files(const HubListing& listing) {
  std::vector<HubFile> files;
  for (const HubFile& file : listing.files) {
    if (file.path.ends_with(".gguf") && !is_later_gguf_part(file.path)) {
      files.push_back(file);
    }
  }
  return files;
}

[[noreturn]] void fail_no_weights(const HubListing& listing, const HubId& id) {
  for (const HubFile& file : listing.files) {
    for (const char* ending : {".bin", ".pth", ".pt", ".h5", ".msgpack"}) {
      if (file.path.ends_with(ending)) {
        fail(
            ErrorKind::Unsupported,
            "[select_files] {}: found weights as {} only, expected "
            "model*.safetensors or a .gguf file",
            id.repo,
            file.path);
      }
    }
  }
  fail(
      ErrorKind::NotFound,
      "[select_files] {}: found neither model*.safetensors nor a .gguf file "
      "among its {} files",
      id.repo,
      listing.files.size());
}

/** The file, or, of a model in parts, all of them, the first one first. */
std::vector<HubFile> with_all_parts(
    const HubListing& listing,
    const HubId& id,
    const HubFile& file) {
  const auto part = parse_gguf_part(file.path);
  if (!part) {
    return {file};
  }
  std::vector<HubFile> parts;
  for (int number = 1; number <= part->count; ++number) {
    const std::string path = gguf_part_path(*part, number);
    const HubFile* found = listing.find(path);
    if (found == nullptr) {
      fail(
          ErrorKind::NotFound,
          "[select_files] {}: lacks {}, part {} of {} of a model",
          id.repo,
          path,
          number,
          part->count);
    }
    parts.push_back(*found);
  }
  return parts;
}

std::vector<HubFile> choose_gguf(const HubListing& listing, const HubId& id) {
  const std::vector<HubFile> files = gguf_files(listing);
  if (!id.file.empty()) {
    if (const HubFile* file = listing.find(id.file)) {
      return with_all_parts(listing, id, *file);
    }
    fail(
        ErrorKind::NotFound,
        "[select_files] {}: has no file {}. {}",
        id.repo,
        id.file,
        files.empty() ? "It has no .gguf file" : "It has " + names_of(files));
  }
  if (files.empty()) {
    fail_no_weights(listing, id);
  }
  if (files.size() > 1) {
    fail(
        ErrorKind::InvalidInput,
        "[select_files] {}: found {} GGUF files, expected one to be chosen. "
        "Write {}:{}; there are {}",
        id.repo,
        files.size(),
        id.repo,
        files.front().path,
        names_of(files));
  }
  return with_all_parts(listing, id, files.front());
}

} // namespace

const HubFile* HubListing::find(const std::string& path) const {
  const auto found =
      std::find_if(files.begin(), files.end(), [&](const HubFile& file) {
        return file.path == path;
      });
  return found == files.end() ? nullptr : &*found;
}

HubListing parse_listing(std::string_view json, const std::string& where) {
  const Json answer = artifacts::parse_json(json, where, artifacts::kListJson);
  HubListing listing;
  if (!answer.is_object()) {
    fail_field(where, "the answer", "an object");
  }
  listing.commit = text_field(answer, "sha");
  if (!is_commit(listing.commit)) {
    fail_field(where, "sha", "a commit of 40 hexadecimal digits");
  }
  const auto siblings = answer.find("siblings");
  if (siblings == answer.end() || !siblings->is_array()) {
    fail_field(where, "siblings", "a list of files");
  }
  std::set<std::string> names;
  std::uint64_t total = 0; // no wrap: two numbers of at most 2^50
  for (const Json& sibling : *siblings) {
    listing.files.push_back(parse_file(sibling, where));
    total += listing.files.back().bytes;
    if (total > kMaxFileBytes) {
      fail_field(
          where,
          "siblings",
          fmt::format("files of at most {} bytes together", kMaxFileBytes));
    }
    if (!names.insert(listing.files.back().path).second) {
      fail_field(where, listing.files.back().path, "each file once");
    }
  }
  return listing;
}

HubSelection select_files(const HubListing& listing, const HubId& id) {
  HubSelection selection;
  bool has_weights = false;
  for (const HubFile& file : listing.files) {
    const bool is_index = file.path == kWeightIndexName;
    has_weights = has_weights || is_index || is_weight_file(file.path);
    const bool is_wanted = file.path == "config.json" || is_index ||
        is_artifact(file.path) ||
        (is_top_level(file.path) && is_side_file(file.path));
    if (is_wanted) {
      selection.side_files.push_back(file);
    }
  }
  if (!id.file.empty() || !has_weights) {
    return {.side_files = {}, .gguf = choose_gguf(listing, id)};
  }
  if (listing.find("config.json") == nullptr) {
    fail(
        ErrorKind::NotFound,
        "[select_files] {}: found weights but no config.json, expected a "
        "model",
        id.repo);
  }
  return selection;
}

std::vector<HubFile> weights_of(
    const HubListing& listing,
    const HubId& id,
    const std::filesystem::path& index) {
  std::vector<std::string> present;
  for (const HubFile& file : listing.files) {
    if (is_weight_file(file.path)) {
      present.push_back(file.path);
    }
  }
  std::vector<HubFile> weights;
  for (const std::string& name : choose_weight_files(present, index)) {
    const HubFile* file = listing.find(name);
    if (file == nullptr) {
      fail(
          ErrorKind::NotFound,
          "[select_files] {}: {} is a part of its weights, which the "
          "repository lacks",
          id.repo,
          name);
    }
    weights.push_back(*file);
  }
  return weights;
}

} // namespace optiq::io
