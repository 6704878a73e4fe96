#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "optiq/base/progress.h"
#include "optiq/io/hub/id.h"

namespace optiq::io {

/** How the hub is reached. */
struct HubSettings {
  std::string endpoint = "https://huggingface.co";
  std::string token; // "" = none
  std::string ca_file; // certificate authorities; "" = the system's
  std::filesystem::path cache; // see HubCache
  bool offline = false; // never use the network
  /** Called several times a second while the hub is waited for; may throw, as
   * Error{Cancelled}, to stop. What came of a file is kept. */
  std::function<void()> on_wait = [] {};
};

/**
 * From the environment, as huggingface_hub reads it: HF_ENDPOINT; HF_TOKEN,
 * else the file HF_TOKEN_PATH or HF_HOME/token; HF_HUB_CACHE, else
 * HUGGINGFACE_HUB_CACHE, else HF_HOME/hub (HF_HOME: huggingface in
 * XDG_CACHE_HOME or ~/.cache); HF_HUB_OFFLINE, else TRANSFORMERS_OFFLINE;
 * SSL_CERT_FILE. Paths may hold ~ and $NAME.
 */
HubSettings hub_settings();

/** A model on this machine. */
struct ResolvedModel {
  std::filesystem::path path; // a model directory, or a .gguf file
  std::optional<HubId> id; // where it came from, when from the hub
  std::string commit; // of the hub's repository
  std::vector<std::string> notices; // what the user should know
};

/**
 * What the user named as a model: a local path when there is one, else
 * org/name[@revision][:file.gguf] of the hub (or a name without org/ that the
 * cache knows), whose missing files are fetched.
 * A revision that is cached is used without the network when it is a commit,
 * when offline is set, and, with a notice, when the hub does not answer.
 * Reports the stage "download" in bytes. Throws NotFound saying what was
 * tried, Denied, Corrupt, Exhausted, Io.
 */
ResolvedModel resolve_model(
    const std::string& model,
    const HubSettings& settings,
    const ProgressSink& progress);

/** Fetches what is missing of a model; no local path is considered. */
ResolvedModel fetch_model(
    const HubId& id,
    const HubSettings& settings,
    const ProgressSink& progress);

} // namespace optiq::io
