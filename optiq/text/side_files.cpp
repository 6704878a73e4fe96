#include "optiq/text/side_files.h"

#include "optiq/base/error.h"
#include "optiq/base/file.h"

namespace optiq::text {
namespace {

constexpr std::size_t kMaxSideFileBytes = 64u << 20;

} // namespace

SideFiles side_files_of(const std::filesystem::path& directory) {
  return [directory](const char* name) {
    const auto path = directory / name;
    return std::filesystem::is_regular_file(path)
        ? std::optional(read_text_file(path, kMaxSideFileBytes))
        : std::nullopt;
  };
}

artifacts::Json read_side_object(
    const SideFiles& files,
    const std::filesystem::path& where,
    const char* name) {
  const auto text = files(name);
  if (!text) {
    return artifacts::Json::object();
  }
  const std::string path = (where / name).string();
  artifacts::Json object = artifacts::parse_json(*text, path);
  if (!object.is_object()) {
    fail(
        ErrorKind::Corrupt,
        "[read_side_object] {}: found {}, expected an object",
        path,
        artifacts::describe(object));
  }
  return object;
}

} // namespace optiq::text
