#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace optiq::cli {

/** Takes the data of server-sent events out of a stream, as the HTML standard
 * (9.2.6) says: lines end in LF, CR or CRLF, an empty one ends an event, a
 * colon begins a comment. Of other fields than data nothing is kept. */
class EventStream {
 public:
  using Sink = std::function<void(std::string_view data)>;

  /** Throws Corrupt for an event of more than 16 MiB. */
  void push(std::string_view bytes, const Sink& sink);

 private:
  void end_line(const Sink& sink);

  std::string line_;
  std::string data_;
  bool has_data_ = false;
  bool after_cr_ = false;
};

} // namespace optiq::cli
