#pragma once

#include <chrono>
#include <cstdio>
#include <string>

#include "optiq/base/progress.h"

namespace optiq::cli {

/** How long work is shown, on stderr. */
enum class ProgressMode {
  Auto, // Bar on a terminal, else Plain
  Plain, // a line now and then, for logs
  Json, // one object a line: event, stage, done, total, detail, seconds, eta
  None,
  Bar,
};

/** "auto", "plain", "json", "none". Throws InvalidInput. */
ProgressMode parse_progress_mode(const std::string& text);

/** Draws events with the time left, which follows from the speed since a
 * stage's first event (work done before counts as done, not as speed). */
class ProgressPrinter {
 public:
  explicit ProgressPrinter(ProgressMode mode, std::FILE* out = stderr);
  ~ProgressPrinter();
  ProgressPrinter(const ProgressPrinter&) = delete;
  ProgressPrinter& operator=(const ProgressPrinter&) = delete;

  void show(const ProgressEvent& event);
  /** Ends a bar's line; later events start a new one. */
  void finish();

 private:
  using Clock = std::chrono::steady_clock;
  struct Timing {
    double seconds = 0; // since the stage began
    double left = -1; // < 0: not known yet
  };
  Timing timing_of(const ProgressEvent& event);
  bool is_due(const ProgressEvent& event);
  void draw_bar(const ProgressEvent& event, const Timing& timing);
  void print_line(const ProgressEvent& event, const Timing& timing);
  void print_json(const ProgressEvent& event, const Timing& timing);

  ProgressMode mode_;
  std::FILE* out_;
  std::string stage_;
  std::uint64_t first_done_ = 0;
  std::size_t drawn_ = 0; // columns of the bar on the screen
  Clock::time_point start_;
  Clock::time_point last_;
};

/** "3:07", "1:02:33". */
std::string format_duration(double seconds);

} // namespace optiq::cli
