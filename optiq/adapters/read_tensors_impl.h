#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "optiq/adapters/adapter_files.h"

namespace optiq::adapters {

/** How a file of one library names and lays out the halves of an update. */
struct TensorNaming {
  std::string_view prefix; // before every module
  std::string_view a; // behind it
  std::string_view b;
  bool has_outputs_first = false; // A [rank, in], B [out, rank]: PEFT
};

/** Rank 0: whatever the tensors have. */
struct RankAndScale {
  int rank = 0;
  float scale = 1.f;
};

/** The updates of a tensor file; `settings_of` says what the settings do of a
 * module. Throws Corrupt or Unsupported naming file and tensor, what was found
 * and what was expected. */
std::vector<StoredUpdate> read_updates(
    const std::filesystem::path& file,
    const TensorNaming& naming,
    const std::function<RankAndScale(const std::string& module)>& settings_of);

} // namespace optiq::adapters
