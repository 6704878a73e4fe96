#include "optiq/cli/progress.h"

#include <algorithm>
#include <cmath>

#include <unistd.h>

#include "optiq/base/error.h"
#include "optiq/cli/output.h"

namespace optiq::cli {

namespace {

constexpr int kBarCells = 24;
constexpr double kBarInterval = 0.1; // seconds
constexpr double kLineInterval = 5; // seconds

bool is_last(const ProgressEvent& event) {
  return event.total > 0 && event.done >= event.total;
}

double fraction_of(const ProgressEvent& event) {
  return event.total == 0
      ? 0
      : std::min(
            1.0,
            static_cast<double>(event.done) / static_cast<double>(event.total));
}

} // namespace

ProgressMode parse_progress_mode(const std::string& text) {
  for (const auto& [name, mode] :
       {std::pair("auto", ProgressMode::Auto),
        std::pair("plain", ProgressMode::Plain),
        std::pair("json", ProgressMode::Json),
        std::pair("none", ProgressMode::None)}) {
    if (text == name) {
      return mode;
    }
  }
  fail(
      ErrorKind::InvalidInput,
      "[parse_progress_mode] --progress {}: expected auto, plain, json or "
      "none.",
      text);
}

std::string format_duration(double seconds) {
  const auto s = static_cast<long long>(std::ceil(std::max(0.0, seconds)));
  return s >= 3600
      ? fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
      : fmt::format("{}:{:02}", s / 60, s % 60);
}

ProgressPrinter::ProgressPrinter(ProgressMode mode, std::FILE* out)
    : mode_(mode), out_(out) {
  if (mode == ProgressMode::Auto) {
    mode_ =
        ::isatty(::fileno(out)) != 0 ? ProgressMode::Bar : ProgressMode::Plain;
  }
}

ProgressPrinter::~ProgressPrinter() {
  finish();
}

void ProgressPrinter::finish() {
  if (drawn_ > 0) {
    write_text(out_, "\n");
    std::fflush(out_);
    drawn_ = 0;
  }
  stage_.clear();
}

ProgressPrinter::Timing ProgressPrinter::timing_of(const ProgressEvent& event) {
  Timing timing;
  timing.seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  const double done =
      static_cast<double>(event.done) - static_cast<double>(first_done_);
  if (done > 0 && event.total > 0 && timing.seconds > 0.5) {
    timing.left = timing.seconds / done *
        (static_cast<double>(event.total) - static_cast<double>(event.done));
  }
  return timing;
}

bool ProgressPrinter::is_due(const ProgressEvent& event) {
  if (event.stage != stage_) {
    finish();
    stage_ = event.stage;
    first_done_ = event.done;
    start_ = Clock::now();
    last_ = start_;
    return true;
  }
  const double interval =
      mode_ == ProgressMode::Bar ? kBarInterval : kLineInterval;
  const auto now = Clock::now();
  if (!is_last(event) &&
      std::chrono::duration<double>(now - last_).count() < interval) {
    return false;
  }
  last_ = now;
  return true;
}

void ProgressPrinter::show(const ProgressEvent& event) {
  if (mode_ == ProgressMode::None || !is_due(event)) {
    return;
  }
  const Timing timing = timing_of(event);
  switch (mode_) {
    case ProgressMode::Bar:
      draw_bar(event, timing);
      break;
    case ProgressMode::Json:
      print_json(event, timing);
      break;
    default:
      print_line(event, timing);
  }
  std::fflush(out_);
}

void ProgressPrinter::draw_bar(
    const ProgressEvent& event,
    const Timing& timing) {
  const int filled =
      static_cast<int>(std::floor(fraction_of(event) * kBarCells));
  std::string line = fmt::format(
      "{:<12}[{:#<{}}{:.<{}}] {:5.1f}%  {}",
      event.stage,
      "",
      filled,
      "",
      kBarCells - filled,
      100 * fraction_of(event),
      timing.left < 0 ? "--:--" : format_duration(timing.left) + " left");
  if (!event.detail.empty()) {
    line += "  " + printable(event.detail);
  }
  line.resize(std::min<std::size_t>(line.size(), 110));
  const std::size_t width = line.size();
  line.append(drawn_ > width ? drawn_ - width : 0, ' ');
  write_text(out_, "\r" + line);
  drawn_ = width;
}

void ProgressPrinter::print_line(
    const ProgressEvent& event,
    const Timing& timing) {
  write_text(
      out_,
      shown_text(
          "{}: {:.1f}%{}{}\n",
          event.stage,
          100 * fraction_of(event),
          timing.left < 0 ? "" : ", " + format_duration(timing.left) + " left",
          event.detail.empty() ? "" : ", " + event.detail));
}

void ProgressPrinter::print_json(
    const ProgressEvent& event,
    const Timing& timing) {
  artifacts::Json json = {
      {"event", "progress"},
      {"stage", event.stage},
      {"done", event.done},
      {"total", event.total},
      {"detail", event.detail},
      {"seconds", std::round(timing.seconds * 1000) / 1000}};
  json["eta"] = timing.left < 0
      ? artifacts::Json()
      : artifacts::Json(std::round(timing.left * 10) / 10);
  print_json_document(json, -1, out_);
}

} // namespace optiq::cli
