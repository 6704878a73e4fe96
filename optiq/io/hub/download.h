#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "optiq/io/http.h"
#include "optiq/io/hub/listing.h"

namespace optiq::io {

/** Where a file comes from and goes to. */
struct BlobDownload {
  HubFile file;
  std::string url;
  std::string commit; // that the answer must name, where it names one
  std::filesystem::path blob;
  std::filesystem::path lock;
};

/** Called with the bytes that are there of this file, several times a second
 * even while none come; may throw to stop. */
using BlobProgress =
    std::function<void(std::uint64_t bytes, const std::string& detail)>;

/**
 * Puts the bytes of a file at `blob`, unless they are there: continues
 * `<blob>.incomplete`, tries again after broken connections, checks size and
 * hash, renames. Waits while another process fetches the same blob. Throws
 * Corrupt when what came is not what was announced, Io, Denied, NotFound,
 * Exhausted.
 */
void download_blob(
    HttpClient& client,
    const BlobDownload& download,
    const BlobProgress& on_progress);

/** The answer to a GET that must succeed; of at most 64 MiB, in at most five
 * minutes. `n_attempts` count broken connections, 429 and 5xx. `on_wait` is
 * called several times a second and may throw to stop. Throws Io when the last
 * attempt failed, NotFound and Denied as the hub says. */
std::string get_text(
    HttpClient& client,
    const std::string& url,
    int n_attempts,
    const std::function<void()>& on_wait);

/** Bytes of `<blob>.incomplete`, 0 when there is none. */
std::uint64_t unfinished_bytes(const std::filesystem::path& blob);

} // namespace optiq::io
