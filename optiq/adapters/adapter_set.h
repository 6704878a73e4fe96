#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "optiq/kernels/matrix.h"
#include "optiq/models/model.h"
#include "optiq/nn/forward_context.h"

namespace optiq::adapters {

struct AdapterSetOptions {
  /** Of adapters that lie on the device; those in use stay, the others go,
   * least recently used first, and are read again when they are asked for. */
  std::size_t max_resident_bytes = std::size_t{1} << 30;
  /** Their values are bfloat16, as K/V are, but float32 in Exact. */
  kernels::Compute compute = kernels::Compute::Fast;
};

/** What a set knows of an adapter. */
struct MountedAdapter {
  std::string id;
  std::filesystem::path directory;
  const char* format = ""; // AdapterFiles::format
  std::string base_model; // by its maker; may be empty
  std::size_t modules = 0; // that it adapts
  int least_rank = 0;
  int largest_rank = 0;
  std::uint64_t parameters = 0;
  std::size_t resident_bytes = 0; // 0: on the disk only
};

/** What lies on the device, stacks included. */
struct ResidentAdapters {
  std::size_t adapters = 0;
  std::size_t bytes = 0;
};

/**
 * Adapters beside a model that does not change: hundreds may be mounted, those
 * in use lie on the device. What is in use outlives its unmounting. Any thread.
 *
 * A selection names what a sequence runs with: "a"; "a+b", which adds what both
 * add; "a*0.5+b" with weights; "" or "base", the model alone.
 */
class AdapterSet {
 public:
  explicit AdapterSet(
      std::shared_ptr<const models::Model> model,
      AdapterSetOptions options = {});
  ~AdapterSet();
  AdapterSet(const AdapterSet&) = delete;
  AdapterSet& operator=(const AdapterSet&) = delete;

  /** Nothing for the model alone. Throws NotFound for an unknown id, with the
   * known ones; InvalidInput for what is no selection; Exhausted when adapters
   * in use leave no room; what open_adapter throws. */
  std::shared_ptr<const nn::Adapter> find(const std::string& selection);

 private:
  friend void mount_adapter(
      AdapterSet& set,
      const std::string& id,
      const std::filesystem::path& directory);
  friend void unmount_adapter(AdapterSet& set, const std::string& id);
  friend std::vector<MountedAdapter> list_adapters(const AdapterSet& set);
  friend ResidentAdapters resident_adapters(const AdapterSet& set);

  struct State;
  std::unique_ptr<State> state_;
};

/** Whether an adapter may have this name: letters, digits and "._-/", and not
 * "base", which is the model alone. */
bool is_adapter_id(std::string_view name);

/** Reads and checks an adapter, and gives it a name. Throws InvalidInput for a
 * name that it may not have, one that is taken, or a folder that does not fit
 * the model; what open_adapter throws. */
void mount_adapter(
    AdapterSet& set,
    const std::string& id,
    const std::filesystem::path& directory);

/** Forgets an adapter; sequences that run with it go on. Throws NotFound. */
void unmount_adapter(AdapterSet& set, const std::string& id);

/** By id. */
std::vector<MountedAdapter> list_adapters(const AdapterSet& set);

ResidentAdapters resident_adapters(const AdapterSet& set);

/** While it lives, generation that this thread starts runs with the selection;
 * that of other threads, and what has started, does not notice. They nest. */
class AdapterActivation {
 public:
  /** Throws as AdapterSet::find. */
  AdapterActivation(AdapterSet& set, const std::string& selection);
  ~AdapterActivation();
  AdapterActivation(const AdapterActivation&) = delete;
  AdapterActivation& operator=(const AdapterActivation&) = delete;

 private:
  std::shared_ptr<const nn::Adapter> before_;
};

/** Of this thread, or nothing. */
std::shared_ptr<const nn::Adapter> active_adapter();

} // namespace optiq::adapters
