// "<JSON>\0<name>": the hub's listing of a repository, or a weight index, and
// the name of a model.
#include "fuzz/fuzz_support.h"

#include "optiq/io/hub/id.h"
#include "optiq/io/hub/listing.h"
#include "optiq/io/weight_files.h"

namespace optiq::fuzz {
namespace {

void check_path(const std::string& path) {
  require(
      !path.starts_with('/') &&
          ("/" + path + "/").find("/../") == std::string::npos &&
          path.find('\0') == std::string::npos,
      "a path stays inside its folder");
}

void check_listing(std::string_view json, const io::HubId& id) {
  const io::HubListing listing = io::parse_listing(json, "listing");
  require(io::is_commit(listing.commit), "a listing has a commit");
  for (const io::HubFile& file : listing.files) {
    check_path(file.path);
    require(listing.find(file.path) == &file, "a file is found by its path");
  }
  const io::HubSelection selection = io::select_files(listing, id);
  std::vector<io::HubFile> chosen = selection.side_files;
  chosen.insert(chosen.end(), selection.gguf.begin(), selection.gguf.end());
  if (selection.gguf.empty()) {
    const auto weights = io::weights_of(listing, id, scratch() / "absent");
    require(!weights.empty(), "a selection has weights");
    chosen.insert(chosen.end(), weights.begin(), weights.end());
  }
  for (const io::HubFile& file : chosen) {
    require(
        listing.find(file.path) != nullptr, "what is chosen is in the list");
  }
}

} // namespace
} // namespace optiq::fuzz

extern "C" std::size_t LLVMFuzzerCustomMutator(
    std::uint8_t* data,
    std::size_t size,
    std::size_t max_size,
    unsigned seed) {
  return optiq::fuzz::mutate_json(data, size, max_size, seed);
}

extern "C" int LLVMFuzzerTestOneInput(
    const std::uint8_t* data,
    std::size_t size) {
  using namespace optiq;
  const auto [text, name] = fuzz::split_at_zero(fuzz::as_text(data, size));
  const std::string_view json = text;
  io::HubId id{.repo = "org/name"};
  if (const auto parsed = io::parse_hub_id(std::string(name))) {
    id = *parsed;
    const auto again = io::parse_hub_id(id.text());
    fuzz::require(
        again && again->repo == id.repo && again->revision == id.revision &&
            again->file == id.file,
        "the name of an id is that id");
    fuzz::check_path(id.repo);
    fuzz::check_path(id.revision);
    if (!id.file.empty()) {
      fuzz::check_path(id.file);
    }
  }
  fuzz::accepts([&] { fuzz::check_listing(json, id); });
  const auto index = fuzz::scratch() / "index.json";
  test::write_file(index, json);
  fuzz::accepts([&] {
    for (const std::string& shard : io::shard_names(index)) {
      fuzz::check_path(shard);
      fuzz::require(
          shard.find('/') == std::string::npos,
          "a shard lies beside its index");
    }
  });
  return 0;
}
