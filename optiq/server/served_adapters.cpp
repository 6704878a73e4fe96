#include "optiq/server/served_adapters.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "optiq/base/error.h"
#include "optiq/server/folder_inside.h"

namespace optiq::server {
namespace {

namespace fs = std::filesystem;

std::int64_t seconds_since_1970() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

AdapterOptions with_real_root(AdapterOptions options) {
  if (!options.root.empty()) {
    std::error_code error;
    const fs::path real = fs::canonical(options.root, error);
    if (error || !fs::is_directory(real, error)) {
      fail(
          ErrorKind::InvalidInput,
          "[serve] --adapters-root {}: found no folder, expected that of the "
          "adapters which clients may mount",
          options.root.string());
    }
    options.root = real;
  }
  return options;
}

} // namespace

const ServedAdapter* AdapterList::find(const std::string& id) const {
  const auto found = std::lower_bound(
      adapters.begin(),
      adapters.end(),
      id,
      [](const ServedAdapter& adapter, const std::string& wanted) {
        return adapter.facts.id < wanted;
      });
  return found == adapters.end() || found->facts.id != id ? nullptr : &*found;
}

std::string AdapterList::names() const {
  std::string names;
  for (const ServedAdapter& adapter : adapters) {
    names += (names.empty() ? "" : ", ") + adapter.facts.id;
  }
  return names.empty() ? "none is mounted" : names;
}

ServedAdapters::ServedAdapters(
    const models::Setup& setup,
    AdapterOptions options)
    : options_(with_real_root(std::move(options))),
      set_(
          setup.model,
          {.max_resident_bytes = options_.max_resident_bytes,
           .compute = setup.compute}),
      list_(std::make_shared<const AdapterList>()) {
  for (const AdapterOptions::Folder& folder : options_.mounted) {
    adapters::mount_adapter(set_, folder.id, folder.directory);
  }
  renew_list();
}

std::shared_ptr<const nn::Adapter> ServedAdapters::find(
    const std::string& selection) {
  auto adapter = set_.find(selection);
  if (adapter != nullptr) {
    renew_list(); // it may have come, and others gone for it
  }
  return adapter;
}

fs::path ServedAdapters::folder_of(const std::string& path) const {
  require_root();
  return folder_inside(options_.root, path);
}

void ServedAdapters::mount(const std::string& id, const fs::path& folder) {
  adapters::mount_adapter(set_, id, folder);
  renew_list();
}

void ServedAdapters::unmount(const std::string& id) {
  require_root();
  adapters::unmount_adapter(set_, id);
  renew_list();
}

std::shared_ptr<const AdapterList> ServedAdapters::list() const {
  const std::lock_guard lock(mutex_);
  return list_;
}

void ServedAdapters::require_root() const {
  if (options_.root.empty()) {
    fail(
        ErrorKind::Denied,
        "[serve] adapters are those that the server was started with: clients "
        "may mount and unmount with --adapters-root DIR only");
  }
}

std::string ServedAdapters::path_in_root(const fs::path& directory) const {
  std::error_code error;
  const fs::path folder = fs::weakly_canonical(directory, error);
  return !options_.root.empty() && !error && lies_in(folder, options_.root)
      ? folder.lexically_relative(options_.root).string()
      : "";
}

void ServedAdapters::renew_list() {
  auto renewed = std::make_shared<AdapterList>();
  renewed->resident = adapters::resident_adapters(set_);
  renewed->max_resident_bytes = options_.max_resident_bytes;
  const auto before = list();
  for (auto& facts : adapters::list_adapters(set_)) {
    const ServedAdapter* const known = before->find(facts.id);
    ServedAdapter adapter = known != nullptr
        ? *known
        : ServedAdapter{
              {}, path_in_root(facts.directory), seconds_since_1970()};
    adapter.facts = std::move(facts);
    renewed->adapters.push_back(std::move(adapter));
  }
  const std::lock_guard lock(mutex_);
  list_ = std::move(renewed);
}

} // namespace optiq::server
