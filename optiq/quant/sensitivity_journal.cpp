#include "optiq/quant/sensitivity_journal.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "optiq/artifacts/json.h"
#include "optiq/base/error.h"
#include "optiq/base/file.h"
#include "optiq/base/hash.h"

namespace optiq::quant {

namespace mx = mlx::core;

namespace {

using artifacts::Json;
namespace fs = std::filesystem;

constexpr int kSchema = 1;
constexpr std::size_t kMaxJournalBytes = std::size_t{1} << 30;

[[noreturn]] void fail_errno(const fs::path& path, const char* what) {
  const int code = errno;
  fail(
      code == EACCES || code == EPERM || code == EROFS ? ErrorKind::Denied
                                                       : ErrorKind::Io,
      "[SensitivityJournal] {}: cannot {}: {}. Point OPTIQ_CACHE_DIR to a "
      "folder with space that you may write.",
      path.string(),
      what,
      std::strerror(code));
}

using Record = SensitivityJournal::Record;

// A journal line as parsed, or nothing when it is not a whole record.
std::optional<Record> parse_record(std::string_view line) {
  try {
    const Json json = artifacts::parse_json(line, "journal");
    Record record{
        json.at("module").get<std::string>(),
        json.at("bits").get<int>(),
        json.at("chunk").get<int>(),
        json.at("kl").get<std::vector<double>>()};
    return record;
  } catch (const Error&) {
    return std::nullopt;
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

std::string header_of(const std::string& key) {
  return Json{{"schema", kSchema}, {"key", key}}.dump();
}

/** The folder of all journals; empty where no cache is set. */
fs::path journal_folder() {
  const auto folder = [](const char* variable) -> fs::path {
    const char* value = std::getenv(variable);
    return value == nullptr ? "" : value;
  };
  fs::path cache = folder("OPTIQ_CACHE_DIR");
  if (cache.empty() && !folder("XDG_CACHE_HOME").empty()) {
    cache = folder("XDG_CACHE_HOME") / "optiq";
  }
  if (cache.empty() && !folder("HOME").empty()) {
    cache = folder("HOME") / ".cache" / "optiq";
  }
  return cache.empty() ? fs::path() : cache / "sensitivity";
}

/** Adds what the shares of a key hold, in the order of their names. */
void merge_shares(const std::string& key, SensitivityJournal& journal) {
  std::vector<fs::path> shares;
  std::error_code error;
  for (const fs::directory_entry& entry :
       fs::directory_iterator(journal_folder(), error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(key + ".") && name.ends_with(".jsonl") &&
        name.size() > key.size() + 6) {
      shares.push_back(entry.path());
    }
  }
  std::sort(shares.begin(), shares.end());
  for (const fs::path& share : shares) {
    journal.merge(share, key);
  }
}

} // namespace

SensitivityJournal::SensitivityJournal(
    const fs::path& path,
    const std::string& key)
    : path_(path) {
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  if (error) {
    errno = error.value();
    fail_errno(path.parent_path(), "be made");
  }
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd_ < 0) {
    fail_errno(path, "be opened");
  }
  try {
    if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      fail(
          ErrorKind::Io,
          "[SensitivityJournal] {}: another process is measuring the same "
          "model on the same calibration. Wait for it: the result will be "
          "shared.",
          path.string());
    }
    const std::size_t good = read(path_, key);
    if (good != fs::file_size(path_) &&
        ::ftruncate(fd_, static_cast<off_t>(good)) != 0) {
      fail_errno(path_, "be cut");
    }
    if (good == 0) {
      append(header_of(key) + "\n");
    }
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

SensitivityJournal::~SensitivityJournal() {
  if (fd_ >= 0) {
    ::close(fd_);
  }
}

void SensitivityJournal::merge(const fs::path& path, const std::string& key) {
  read(path, key);
}

/** Keeps the records; returns where the last whole line ends. */
std::size_t SensitivityJournal::read(
    const fs::path& path,
    const std::string& key) {
  const std::string text = read_text_file(path, kMaxJournalBytes);
  const std::string first = header_of(key);
  std::size_t good = 0;
  while (good < text.size()) {
    const std::size_t end = text.find('\n', good);
    if (end == std::string::npos) {
      break;
    }
    const std::string_view line =
        std::string_view(text).substr(good, end - good);
    if (good == 0) {
      if (line != first) {
        fail(
            ErrorKind::Corrupt,
            "[SensitivityJournal] {}: the first line is not {}. Delete the "
            "file.",
            path.string(),
            first);
      }
    } else {
      const auto record = parse_record(line);
      if (!record) {
        break;
      }
      keep(*record);
    }
    good = end + 1;
  }
  return good;
}

void SensitivityJournal::append(const std::string& lines) {
  std::size_t done = 0;
  while (done < lines.size()) {
    const ssize_t n = ::write(fd_, lines.data() + done, lines.size() - done);
    if (n < 0 && errno != EINTR) {
      fail_errno(path_, "be written");
    }
    done += n < 0 ? 0 : static_cast<std::size_t>(n);
  }
  if (::fdatasync(fd_) != 0) {
    fail_errno(path_, "be flushed");
  }
}

bool SensitivityJournal::has(
    const std::string& module,
    int bits,
    int first,
    int n) const {
  for (int chunk = first; chunk < first + n; ++chunk) {
    if (!entries_.contains({module, bits, chunk})) {
      return false;
    }
  }
  return true;
}

double SensitivityJournal::at(const std::string& module, int bits, int chunk)
    const {
  return entries_.at({module, bits, chunk});
}

void SensitivityJournal::record(
    const std::string& module,
    int bits,
    int first,
    std::span<const double> kl) {
  const Record record{module, bits, first, {kl.begin(), kl.end()}};
  this->record({&record, 1});
}

void SensitivityJournal::record(std::span<const Record> records) {
  if (fd_ >= 0) {
    // The library prints the shortest text that reads back as the same
    // double, so a resumed measurement equals an uninterrupted one.
    std::string lines;
    for (const Record& record : records) {
      const Json line = {
          {"module", record.module},
          {"bits", record.bits},
          {"chunk", record.chunk},
          {"kl", record.kl}};
      lines += line.dump() + "\n";
    }
    append(lines);
  }
  for (const Record& record : records) {
    keep(record);
  }
}

void SensitivityJournal::keep(const Record& record) {
  for (std::size_t i = 0; i < record.kl.size(); ++i) {
    const int chunk = record.chunk + static_cast<int>(i);
    entries_[{record.module, record.bits, chunk}] = record.kl[i];
  }
}

std::string model_digest(const io::ModelDirectory& directory) {
  Sha256 hash;
  hash.update(directory.config().dump());
  for (const io::TensorInfo& tensor : directory.tensors()) {
    hash.update(fmt::format("\n{} {}", tensor.name, mx::size_of(tensor.dtype)));
    for (const auto dim : tensor.shape) {
      hash.update(fmt::format(" {}", dim));
    }
    const mx::array values = directory.load(tensor.name);
    hash.update(std::span(values.data<std::byte>(), values.nbytes()));
    directory.drop(tensor.name);
  }
  return hash.hex_digest();
}

std::string sensitivity_key(
    const std::string& model_digest,
    const MeasurementSettings& settings) {
  Sha256 hash;
  hash.update(fmt::format(
      "schema {} model {} calibration {} group {} compute {} simd {} form {}\n",
      kSchema,
      model_digest,
      settings.calibration_hash,
      settings.group_size,
      name_of(settings.compute),
      settings.arithmetic,
      settings.form));
  return hash.hex_digest();
}

fs::path sensitivity_journal_path(const std::string& key) {
  const fs::path folder = journal_folder();
  return folder.empty() ? fs::path() : folder / (key + ".jsonl");
}

fs::path scratch_folder() {
  const fs::path path = sensitivity_journal_path("scratch");
  return path.empty() ? fs::temp_directory_path() : path.parent_path();
}

fs::path sensitivity_journal_path(const std::string& key, const Share& share) {
  const fs::path folder = journal_folder();
  return folder.empty() ? fs::path()
                        : folder /
          fmt::format("{}.{}-of-{}.jsonl", key, share.index, share.count);
}

std::unique_ptr<SensitivityJournal> open_sensitivity_journal(
    const std::string& key,
    std::vector<std::string>& notices) {
  const fs::path path = sensitivity_journal_path(key);
  std::string reason = "neither OPTIQ_CACHE_DIR nor HOME is set";
  auto journal = std::make_unique<SensitivityJournal>();
  if (!path.empty()) {
    try {
      journal = std::make_unique<SensitivityJournal>(path, key);
      reason.clear();
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::Denied) {
        throw;
      }
      reason = e.what();
    }
  }
  if (!reason.empty()) {
    notices.push_back(
        "the measurement is not kept and cannot be resumed: " + reason);
  }
  merge_shares(key, *journal);
  return journal;
}

std::unique_ptr<SensitivityJournal> find_sensitivity_journal(
    const std::string& key) {
  const fs::path path = sensitivity_journal_path(key);
  auto journal = fs::exists(path)
      ? std::make_unique<SensitivityJournal>(path, key)
      : std::make_unique<SensitivityJournal>();
  merge_shares(key, *journal);
  return journal;
}

std::unique_ptr<SensitivityJournal> open_share_journal(
    const std::string& key,
    const Share& share) {
  const fs::path path = sensitivity_journal_path(key, share);
  if (path.empty()) {
    fail(
        ErrorKind::Denied,
        "[convert] --shard: neither OPTIQ_CACHE_DIR nor HOME is set, expected a "
        "folder for what is measured. Set OPTIQ_CACHE_DIR to one that all "
        "shares see.");
  }
  return std::make_unique<SensitivityJournal>(path, key);
}

} // namespace optiq::quant
