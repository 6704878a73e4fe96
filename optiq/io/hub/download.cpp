#include "optiq/io/hub/download.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <memory>
#include <optional>
#include <system_error>
#include <thread>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "optiq/base/error.h"
#include "optiq/base/hash.h"
#include "optiq/io/hub/cache.h"

namespace optiq::io {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxFailures = 5; // in a row, each with less than kMinGain
// More than a connection brings in a minute at the least speed that is allowed.
constexpr std::uint64_t kMinGain = 128u << 10;
constexpr double kFirstDelay = 0.5; // seconds; doubles with each failure
constexpr double kMaxDelay = 30;
constexpr std::uint64_t kMaxTextBytes = 64u << 20;
constexpr long kTextSeconds = 300;

[[noreturn]] void fail_errno(const fs::path& path, const char* action) {
  const int code = errno;
  const bool is_full = code == ENOSPC || code == EDQUOT || code == EFBIG;
  const bool is_denied = code == EACCES || code == EPERM || code == EROFS;
  fail(
      is_full         ? ErrorKind::Exhausted
          : is_denied ? ErrorKind::Denied
                      : ErrorKind::Io,
      "[download_blob] {}: cannot {}: {}",
      path.string(),
      action,
      std::generic_category().message(code));
}

/** The part of a file that has come, with the hash of it so far. */
class PartialFile {
 public:
  /** Opens or makes it; hashes what is there. More than the whole is void. */
  PartialFile(
      fs::path path,
      const HubFile& file,
      const BlobProgress& on_progress)
      : path_(std::move(path)), file_(file) {
    fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd_ < 0) {
      fail_errno(path_, "create");
    }
    try {
      hash_present(on_progress);
    } catch (...) {
      ::close(fd_);
      throw;
    }
  }
  ~PartialFile() {
    ::close(fd_);
  }
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;

  std::uint64_t size() const {
    return size_;
  }

  void restart() {
    if (::ftruncate(fd_, 0) != 0 || ::lseek(fd_, 0, SEEK_SET) != 0) {
      fail_errno(path_, "empty");
    }
    size_ = 0;
    start_hash();
  }

  void append(std::span<const std::byte> bytes) {
    if (bytes.size() > file_.bytes - size_) {
      fail(
          ErrorKind::Corrupt,
          "[download_blob] {}: found more than {} bytes, expected as many as "
          "the hub announced",
          file_.path,
          file_.bytes);
    }
    hash_->update(bytes);
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno != EINTR) {
        fail_errno(path_, "write");
      }
      const auto written = static_cast<std::size_t>(std::max<ssize_t>(n, 0));
      size_ += written;
      bytes = bytes.subspan(written);
    }
  }

  /** Of the whole file. The object takes no more bytes afterwards. */
  std::string digest() {
    return hash_->hex_digest();
  }

  void publish(const fs::path& target) {
    if (::fsync(fd_) != 0) {
      fail_errno(path_, "flush to disk");
    }
    if (::rename(path_.c_str(), target.c_str()) != 0) {
      fail_errno(path_, "rename into place");
    }
  }

 private:
  void hash_present(const BlobProgress& on_progress) {
    start_hash();
    std::array<std::byte, 1 << 16> buffer{};
    ssize_t n = 0;
    while ((n = ::read(fd_, buffer.data(), buffer.size())) > 0) {
      hash_->update(std::span(buffer).first(static_cast<std::size_t>(n)));
      size_ += static_cast<std::uint64_t>(n);
      on_progress(size_, file_.path + ", checking what is there");
    }
    if (n < 0) {
      fail_errno(path_, "read");
    }
    if (size_ > file_.bytes) {
      restart();
    }
  }

  void start_hash() {
    if (file_.hash.size() == 64) {
      hash_ = std::make_unique<Sha256>();
      return;
    }
    hash_ = std::make_unique<Sha1>(); // of git's blob object
    hash_->update(fmt::format("blob {}", file_.bytes));
    hash_->update(std::string_view("\0", 1));
  }

  fs::path path_;
  const HubFile& file_;
  int fd_ = -1;
  std::uint64_t size_ = 0;
  std::unique_ptr<MessageDigest> hash_;
};

std::optional<std::uint64_t> parse_number(std::string_view text) {
  std::uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [next, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && next == end && !text.empty()
      ? std::optional(value)
      : std::nullopt;
}

/** first and total of "bytes first-last/total"; total absent for "*". */
struct ContentRange {
  std::optional<std::uint64_t> first;
  std::optional<std::uint64_t> total;
};

ContentRange parse_content_range(std::string_view text) {
  ContentRange range;
  const std::size_t dash = text.find('-');
  const std::size_t slash = text.find('/');
  if (text.starts_with("bytes ") && dash != std::string_view::npos &&
      slash != std::string_view::npos) {
    range.first = parse_number(text.substr(6, dash - 6));
    range.total = parse_number(text.substr(slash + 1));
  }
  return range;
}

/** "abc" of "\"abc\"" or W/"abc". */
std::string bare_etag(std::string etag) {
  if (etag.starts_with("W/")) {
    etag.erase(0, 2);
  }
  std::erase(etag, '"');
  return etag;
}

bool may_pass(long status) {
  return status == 408 || status == 429 || status >= 500;
}

[[noreturn]] void fail_status(const HttpHead& head) {
  const std::string code = head.header("x-error-code");
  if (head.status == 401 || head.status == 403) {
    fail(
        ErrorKind::Denied,
        "[hub] {}: refused with status {}. The repository does not exist, is "
        "private or asks for consent: check the name, accept its terms on the "
        "hub, and set HF_TOKEN",
        head.url,
        head.status);
  }
  if (head.status == 404) {
    fail(
        ErrorKind::NotFound,
        "[hub] {}: not found ({}). Check name and revision",
        head.url,
        code == "RevisionNotFound"    ? "the repository has no such revision"
            : code == "EntryNotFound" ? "the repository has no such file"
                                      : "no such repository");
  }
  fail(
      ErrorKind::Io,
      "[hub] {}: found status {}, expected 200",
      head.url,
      head.status);
}

void expect_announced(
    const BlobDownload& download,
    const char* what,
    const std::string& found,
    const std::string& expected) {
  if (found != expected) {
    fail(
        ErrorKind::Corrupt,
        "[download_blob] {}: the server's {} is {}, the hub announced {}. Try "
        "again; if it stays so, the repository or a proxy is broken",
        download.file.path,
        what,
        found,
        expected);
  }
}

/** Compares the heads with what the listing said. */
void check_heads(const BlobDownload& download, const HttpResult& result) {
  const HubFile& file = download.file;
  const std::string bytes = std::to_string(file.bytes);
  std::string etag = bare_etag(result.first.header("x-linked-etag"));
  if (etag.empty() && result.first.status < 300) {
    etag = bare_etag(result.first.header("etag"));
  }
  if (is_hex(etag, file.hash.size())) {
    expect_announced(download, "hash", etag, file.hash);
  }
  if (const std::string size = result.first.header("x-linked-size");
      !size.empty()) {
    expect_announced(download, "size", size, bytes);
  }
  if (const std::string commit = result.first.header("x-repo-commit");
      !commit.empty()) {
    expect_announced(download, "commit", commit, download.commit);
  }
  const std::string length = result.last.header("content-length");
  if (result.last.status == 200 && !length.empty()) {
    expect_announced(download, "size", length, bytes);
  }
}

/** Waits, but hears a cancellation. */
void pause(double seconds, const std::function<void()>& report) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (Clock::now() < end) {
    report();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

double delay_after(int n_failures, const HttpHead& head) {
  const double backoff =
      kFirstDelay * static_cast<double>(1 << (n_failures - 1));
  const auto wanted = parse_number(head.header("retry-after"));
  const bool is_asked = may_pass(head.status) && wanted;
  return std::min(
      kMaxDelay,
      std::max(backoff, is_asked ? static_cast<double>(*wanted) : 0.0));
}

/** Fetches one blob into its partial file. */
class BlobTransfer {
 public:
  BlobTransfer(
      HttpClient& client,
      const BlobDownload& download,
      PartialFile& partial,
      const BlobProgress& on_progress)
      : client_(client),
        download_(download),
        partial_(partial),
        on_progress_(on_progress) {}

  /** Until every byte has come. */
  void run() {
    int n_failures = 0;
    while (partial_.size() < download_.file.bytes) {
      const std::uint64_t before = partial_.size();
      const HttpResult result = attempt();
      if (partial_.size() >= before + kMinGain) {
        n_failures = 0;
      }
      if (partial_.size() == download_.file.bytes) {
        break;
      }
      if (++n_failures == kMaxFailures) {
        fail(
            ErrorKind::Io,
            "[download_blob] {}: {} at byte {} of {}, {} times. What came is "
            "kept: the same command goes on from there",
            download_.url,
            reason(result),
            partial_.size(),
            download_.file.bytes,
            n_failures);
      }
      pause(delay_after(n_failures, result.last), [&] {
        on_progress_(partial_.size(), download_.file.path + ", trying again");
      });
    }
  }

 private:
  static std::string reason(const HttpResult& result) {
    if (result.broken) {
      return *result.broken;
    }
    return may_pass(result.last.status)
        ? fmt::format("the server answers with status {}", result.last.status)
        : "the answer ends";
  }

  HttpResult attempt() {
    request_first_byte_ = partial_.size();
    HttpRequest request{
        .url = download_.url,
        .first_byte = partial_.size(),
        .if_match = {},
        .if_match_origin = {},
        .on_wait = [&] { on_progress_(partial_.size(), download_.file.path); }};
    if (request.first_byte > 0) {
      request.if_match = etag_;
      request.if_match_origin = etag_origin_;
    }
    return client_.send(
        request,
        download_.file.bytes,
        [&](const HttpResult& result) { take_head(result); },
        [&](std::span<const std::byte> bytes) {
          partial_.append(bytes);
          on_progress_(partial_.size(), download_.file.path);
        });
  }

  void take_head(const HttpResult& result) {
    const HttpHead& head = result.last;
    if (head.status == 412 || head.status == 416) {
      if (was_restarted_) {
        fail(
            ErrorKind::Corrupt,
            "[download_blob] {}: the server's file ends before byte {}, the "
            "hub announced {}. Try again later",
            download_.file.path,
            request_first_byte_,
            download_.file.bytes);
      }
      was_restarted_ = true; // the server has another file: from the start
      partial_.restart();
      return;
    }
    if (may_pass(head.status)) {
      return;
    }
    if (head.status != 200 && head.status != 206) {
      fail_status(head);
    }
    check_heads(download_, result);
    if (head.status == 200) {
      partial_.restart(); // the server knows no ranges
    } else {
      const ContentRange range =
          parse_content_range(head.header("content-range"));
      expect_announced(
          download_,
          "first byte",
          range.first ? std::to_string(*range.first) : "unknown",
          std::to_string(partial_.size()));
      expect_announced(
          download_,
          "size",
          std::to_string(range.total.value_or(download_.file.bytes)),
          std::to_string(download_.file.bytes));
    }
    const std::string etag = head.header("etag");
    etag_ = etag.starts_with('"') ? etag : "";
    etag_origin_ = origin_of(head.url);
  }

  HttpClient& client_;
  const BlobDownload& download_;
  PartialFile& partial_;
  const BlobProgress& on_progress_;
  bool was_restarted_ = false;
  std::uint64_t request_first_byte_ = 0;
  std::string etag_; // of the answer that the partial file came from
  Origin etag_origin_;
};

/** Whether the blob is there; one of a wrong size is none. */
bool has_blob(const BlobDownload& download) {
  std::error_code error; // absent
  return fs::file_size(download.blob, error) == download.file.bytes && !error;
}

FileLock wait_for_lock(
    const BlobDownload& download,
    const BlobProgress& on_progress) {
  while (true) {
    if (auto lock = FileLock::try_lock(download.lock)) {
      return std::move(*lock);
    }
    pause(0.2, [&] {
      on_progress(
          unfinished_bytes(download.blob),
          download.file.path + ", fetched by another process");
    });
  }
}

} // namespace

std::uint64_t unfinished_bytes(const fs::path& blob) {
  std::error_code error; // absent
  const std::uintmax_t size =
      fs::file_size(blob.string() + ".incomplete", error);
  return error ? 0 : size;
}

void download_blob(
    HttpClient& client,
    const BlobDownload& download,
    const BlobProgress& on_progress) {
  std::error_code error;
  fs::create_directories(download.blob.parent_path(), error);
  if (error) {
    errno = error.value();
    fail_errno(download.blob.parent_path(), "create");
  }
  const FileLock lock = wait_for_lock(download, on_progress);
  if (has_blob(download)) {
    return;
  }
  PartialFile partial(
      download.blob.string() + ".incomplete", download.file, on_progress);
  const bool was_begun = partial.size() > 0;
  BlobTransfer(client, download, partial, on_progress).run();
  std::string digest = partial.digest();
  if (digest != download.file.hash && was_begun) {
    partial.restart(); // what an earlier run left may be of another file
    BlobTransfer(client, download, partial, on_progress).run();
    digest = partial.digest();
  }
  if (digest != download.file.hash) {
    partial.restart();
    fail(
        ErrorKind::Corrupt,
        "[download_blob] {}: found hash {} of {} bytes, the hub announced {}. "
        "The bytes were thrown away: try again",
        download.file.path,
        digest,
        download.file.bytes,
        download.file.hash);
  }
  partial.publish(download.blob);
}

std::string get_text(
    HttpClient& client,
    const std::string& url,
    int n_attempts,
    const std::function<void()>& on_wait) {
  for (int n_failures = 1;; ++n_failures) {
    std::string text;
    const HttpResult result = client.send(
        {.url = url,
         .if_match = {},
         .if_match_origin = {},
         .total_timeout_s = kTextSeconds,
         .on_wait = on_wait},
        kMaxTextBytes,
        [](const HttpResult& answer) {
          if (answer.last.status != 200 && !may_pass(answer.last.status)) {
            fail_status(answer.last);
          }
        },
        [&](std::span<const std::byte> bytes) {
          text.append(
              reinterpret_cast<const char*>(bytes.data()), bytes.size());
        });
    if (!result.broken && !may_pass(result.last.status)) {
      return text;
    }
    if (n_failures == n_attempts) {
      fail(
          ErrorKind::Io,
          "[hub] {}: {}",
          url,
          result.broken ? *result.broken
                        : fmt::format("status {}", result.last.status));
    }
    pause(delay_after(n_failures, result.last), on_wait);
  }
}

} // namespace optiq::io
