#pragma once

#include <optional>
#include <string>

namespace optiq::io {

/** A model on the hub: "org/name", "org/name@revision",
 * "org/name@revision:file.gguf". */
struct HubId {
  std::string repo; // "org/name"
  std::string revision = "main"; // branch, tag or commit
  std::string file; // one file of the repository, or ""

  std::string text() const;
};

/** The parts of such a name, or nothing when the text is none. */
std::optional<HubId> parse_hub_id(const std::string& text);

/** As parse_hub_id, and the names without "org/" that the hub gave to its first
 * models ("gpt2"): to look into a cache, since any word is such a name. */
std::optional<HubId> parse_cached_id(const std::string& text);

/** Whether a revision is a full commit hash, which never changes. */
bool is_commit(const std::string& revision);

/** Whether text is lower-case hexadecimal of so many digits. */
bool is_hex(const std::string& text, std::size_t n_digits);

/** Whether a path of a repository stays inside the folder it is put in. */
bool is_safe_relative_path(const std::string& path);

} // namespace optiq::io
