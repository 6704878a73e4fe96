#include "optiq/cli/access_log.h"

#include <ctime>

#include <fmt/format.h>

#include "optiq/artifacts/json.h"
#include "optiq/base/printable.h"

namespace optiq::cli {
namespace {

/** RFC 3339, in UTC. */
std::string timestamp(long unix_time) {
  const auto seconds = static_cast<std::time_t>(unix_time);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  return fmt::format(
      "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
      utc.tm_year + 1900,
      utc.tm_mon + 1,
      utc.tm_mday,
      utc.tm_hour,
      utc.tm_min,
      utc.tm_sec);
}

std::string json_line(const server::HttpAccess& access, long unix_time) {
  std::string line = artifacts::dump_json(
      {{"time", timestamp(unix_time)},
       {"id", access.id},
       {"peer", access.peer},
       {"method", access.method},
       {"target", access.target},
       {"status", access.status},
       {"bytes", access.bytes_sent},
       {"seconds", access.seconds},
       {"gone", access.gone}},
      -1);
  line.pop_back(); // the newline
  return line;
}

} // namespace

std::string access_line(
    const server::HttpAccess& access,
    LogFormat format,
    long unix_time) {
  if (format == LogFormat::Json) {
    return json_line(access, unix_time);
  }
  return fmt::format(
      "{} {} \"{} {}\" {} {} B {:.3f} s {}{}",
      timestamp(unix_time),
      access.peer,
      printable(access.method),
      printable(access.target),
      access.status,
      access.bytes_sent,
      access.seconds,
      access.id,
      access.gone ? " gone" : "");
}

} // namespace optiq::cli
