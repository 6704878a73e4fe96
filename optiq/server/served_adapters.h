#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "optiq/adapters/adapter_set.h"
#include "optiq/models/setup.h"

namespace optiq::server {

/** Which adapters are served, and who may change that. */
struct AdapterOptions {
  struct Folder {
    std::string id;
    std::filesystem::path directory;
  };
  std::vector<Folder> mounted; // from the start
  std::size_t max_resident_bytes = std::size_t{1} << 30; // as AdapterSet's
  /** Clients mount folders in this one, and unmount; empty: they may not. */
  std::filesystem::path root;
};

/** The most bytes of an id. */
inline constexpr std::size_t kMaxAdapterId = 128;
/** What a client is told where adapters in use leave no room. */
inline constexpr const char* kAdapterMemoryFull = "adapter_memory_full";

struct ServedAdapter {
  adapters::MountedAdapter facts;
  std::string path; // in the root; empty where it lies elsewhere
  std::int64_t created = 0; // when it was mounted, in seconds since 1970
};

/** What was mounted, and what lay on the device, at one moment. */
struct AdapterList {
  std::vector<ServedAdapter> adapters; // by id
  adapters::ResidentAdapters resident;
  std::size_t max_resident_bytes = 0;

  /** Or null. */
  const ServedAdapter* find(const std::string& id) const;
  /** "a, b", or that there is none. */
  std::string names() const;
};

/**
 * Adapters beside the served model. What may read files (find, mount, unmount)
 * is called by one thread, the worker's, so that neither the engine nor the I/O
 * thread waits for a disk; `list` may be called by any and waits for nothing.
 */
class ServedAdapters {
 public:
  /** Mounts those of the start. Throws InvalidInput for a root that is no
   * folder; what adapters::mount_adapter throws. */
  ServedAdapters(const models::Setup& setup, AdapterOptions options);

  /** Throws as AdapterSet::find. */
  std::shared_ptr<const nn::Adapter> find(const std::string& selection);
  /** The folder that a client names. Throws Denied without a root, and as
   * folder_inside. */
  std::filesystem::path folder_of(const std::string& path) const;
  /** Throws as adapters::mount_adapter. */
  void mount(const std::string& id, const std::filesystem::path& folder);
  /** What runs with it goes on. Throws Denied without a root; NotFound. */
  void unmount(const std::string& id);
  /** As of the last of these calls. */
  std::shared_ptr<const AdapterList> list() const;

 private:
  void require_root() const;
  std::string path_in_root(const std::filesystem::path& directory) const;
  void renew_list();

  AdapterOptions options_;
  adapters::AdapterSet set_;
  mutable std::mutex mutex_; // guards list_
  std::shared_ptr<const AdapterList> list_;
};

} // namespace optiq::server
