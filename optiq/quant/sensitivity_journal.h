#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "optiq/io/model_directory.h"
#include "optiq/kernels/device.h"
#include "optiq/quant/share.h"

/**
 * What was measured so far, so that a killed measurement goes on and a finished
 * one serves every later target. JSON lines, appended and flushed one by one:
 *   {"schema": 1, "key": "<64 hex digits>"}
 *   {"module": str, "bits": int, "chunk": int, "kl": [float...]}
 * kl[i] is the mean KL over the tokens of chunk + i. What follows the first
 * line that is not whole is cut off when the file is opened.
 */
namespace optiq::quant {

class SensitivityJournal {
 public:
  /** A line: kl[i] is of chunk + i. */
  struct Record {
    std::string module;
    int bits = 0;
    int chunk = 0;
    std::vector<double> kl;
  };

  /** Keeps everything in memory only. */
  SensitivityJournal() = default;
  /** Opens or makes the file and locks it. Throws Corrupt when it holds another
   * key, Denied or Io when it cannot be written or is in use. */
  SensitivityJournal(const std::filesystem::path& path, const std::string& key);
  ~SensitivityJournal();
  SensitivityJournal(const SensitivityJournal&) = delete;
  SensitivityJournal& operator=(const SensitivityJournal&) = delete;

  /** Takes what another file of the same key holds, as far as its lines are
   * whole; it may be one that is being written. Throws Corrupt when it holds
   * another key. */
  void merge(const std::filesystem::path& path, const std::string& key);

  /** Whether all of chunks [first, first + n) are there. */
  bool has(const std::string& module, int bits, int first, int n) const;
  /** Mean KL of one chunk, which must be there. */
  double at(const std::string& module, int bits, int chunk) const;
  /** Is on the disk when this returns. Throws Io. */
  void record(
      const std::string& module,
      int bits,
      int first,
      std::span<const double> kl);
  void record(std::span<const Record> records);

 private:
  std::size_t read(const std::filesystem::path& path, const std::string& key);
  void keep(const Record& record);
  void append(const std::string& lines);

  std::filesystem::path path_;
  int fd_ = -1;
  std::map<std::tuple<std::string, int, int>, double> entries_;
};

/** SHA-256 over the tensors' names, shapes and bytes and config.json. Reads the
 * whole model once. */
std::string model_digest(const io::ModelDirectory& directory);

/** What a number depends on beside the model. */
struct MeasurementSettings {
  std::string calibration_hash;
  int group_size = 0;
  kernels::Compute compute = kernels::Compute::Exact;
  std::string arithmetic; // the device's
  std::string form = "exact"; // how it came about
};

/** SHA-256 over everything that a measured number depends on. */
std::string sensitivity_key(
    const std::string& model_digest,
    const MeasurementSettings& settings);

/** <cache>/sensitivity/<key>.jsonl, where <cache> is $OPTIQ_CACHE_DIR,
 * $XDG_CACHE_HOME/optiq or $HOME/.cache/optiq; empty when none is set. */
std::filesystem::path sensitivity_journal_path(const std::string& key);
/** Where ScratchFiles go: beside the journals, or among the temporary files
 * where there is no place for these. */
std::filesystem::path scratch_folder();

/** The same with "<key>.2-of-3.jsonl" for a name. */
std::filesystem::path sensitivity_journal_path(
    const std::string& key,
    const Share& share);

/** The journal at that path, with what the shares' beside it hold; one in
 * memory, with a notice, where it may not be written: that costs only the
 * resuming. */
std::unique_ptr<SensitivityJournal> open_sensitivity_journal(
    const std::string& key,
    std::vector<std::string>& notices);

/** The same where it exists, else one in memory. */
std::unique_ptr<SensitivityJournal> find_sensitivity_journal(
    const std::string& key);

/** A share's own. Throws Denied or Io where it cannot be written: it is all
 * that the share is measured for. */
std::unique_ptr<SensitivityJournal> open_share_journal(
    const std::string& key,
    const Share& share);

} // namespace optiq::quant
