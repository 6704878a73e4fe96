#include "optiq/cli/event_stream.h"

#include <cstddef>

#include "optiq/base/error.h"

namespace optiq::cli {
namespace {

constexpr std::size_t kMaxEventBytes = 16u << 20;
constexpr std::string_view kData = "data";

} // namespace

void EventStream::push(std::string_view bytes, const Sink& sink) {
  for (const char byte : bytes) {
    const bool ends_crlf = after_cr_ && byte == '\n';
    after_cr_ = byte == '\r';
    if (ends_crlf) {
      continue;
    }
    if (byte == '\n' || byte == '\r') {
      end_line(sink);
      continue;
    }
    line_.push_back(byte);
    if (line_.size() + data_.size() > kMaxEventBytes) {
      fail(
          ErrorKind::Corrupt,
          "[EventStream] found an event of more than {} bytes",
          kMaxEventBytes);
    }
  }
}

void EventStream::end_line(const Sink& sink) {
  if (line_.empty()) {
    if (has_data_) {
      sink(data_);
    }
    data_.clear();
    has_data_ = false;
    return;
  }
  const std::string_view line(line_);
  const std::size_t colon = line.find(':');
  if (line.substr(0, colon) == kData) {
    std::string_view value =
        colon == std::string_view::npos ? "" : line.substr(colon + 1);
    value.remove_prefix(value.starts_with(' ') ? 1 : 0);
    data_ += has_data_ ? "\n" : "";
    data_ += value;
    has_data_ = true;
  }
  line_.clear();
}

} // namespace optiq::cli
