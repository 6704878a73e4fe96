#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "optiq/io/hub/id.h"

namespace optiq::io {

/** A file of a repository. */
struct HubFile {
  std::string path;
  std::uint64_t bytes = 0;
  /** SHA-256 of an LFS file's bytes, else git's SHA-1 of the blob. */
  std::string hash;
};

/** A repository at one commit. */
struct HubListing {
  std::string commit;
  std::vector<HubFile> files;

  const HubFile* find(const std::string& path) const;
};

/**
 * Reads the hub's answer to api/models/<repo>/revision/<revision>?blobs=true:
 *
 *   {"sha": commit, "siblings": [{"rfilename": path, "size": n, "blobId": sha1,
 *    "lfs": {"sha256": hash, "size": n}}, ...]}
 *
 * Throws Corrupt, also for paths that leave the folder they are put in, and for
 * sizes whose sum is no size.
 */
HubListing parse_listing(std::string_view json, const std::string& where);

/** What a model needs of a repository, before its weights are known. */
struct HubSelection {
  /** Config, tokenizer, templates, licences, artifacts, the weight index. */
  std::vector<HubFile> side_files;
  std::vector<HubFile> gguf; // instead of all else: a file, or its parts
};

/**
 * Chooses the files. A repository of GGUF files gives the one that id.file
 * names, or its only one. Throws NotFound or Unsupported, listing what is
 * there, when there is no such file or no model.
 */
HubSelection select_files(const HubListing& listing, const HubId& id);

/** The files of the weights, where the selection is no GGUF file; `index` is
 * the weight index, fetched if there is one. Throws NotFound for one that the
 * repository lacks, Corrupt. */
std::vector<HubFile> weights_of(
    const HubListing& listing,
    const HubId& id,
    const std::filesystem::path& index);

} // namespace optiq::io
