#pragma once

#include <string>

#include "optiq/server/http_server.h"

namespace optiq::cli {

enum class LogFormat { Text, Json };

/**
 * One line, without its newline, of what was answered:
 *
 *   2026-11-28T16:00:00Z 127.0.0.1:41000 "POST /v1/completions" 200 512 B
 *     0.250 s 8d1f00c200000001
 *
 * with " gone" behind it where the peer left before the end; or the same as a
 * JSON object. No header and no body is ever logged.
 */
std::string
access_line(const server::HttpAccess& access, LogFormat format, long unix_time);

} // namespace optiq::cli
