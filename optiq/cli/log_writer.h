#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

namespace optiq::cli {

/**
 * Writes lines on a thread of its own, in order: whoever serves does not wait
 * for a terminal or a pipe that nobody reads. When too many wait, further ones
 * are dropped, and a line says how many.
 */
class LogWriter {
 public:
  using Write = std::function<void(const std::string& line)>;

  explicit LogWriter(Write write, std::size_t max_waiting = 10'000);
  /** Gives what waits a second; a writer that hangs is left behind, with its
   * `write`. */
  ~LogWriter();
  LogWriter(const LogWriter&) = delete;
  LogWriter& operator=(const LogWriter&) = delete;

  /** From any thread; never waits. */
  void push(std::string line);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

} // namespace optiq::cli
