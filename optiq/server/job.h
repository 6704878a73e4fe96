#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "optiq/generate/answer_text.h"
#include "optiq/generate/engine.h"
#include "optiq/generate/request.h"
#include "optiq/server/error_response.h"
#include "optiq/server/metrics.h"

namespace optiq::server {

using Clock = std::chrono::steady_clock;

/** What became certain of one choice's text since the last piece, and the
 * tokens since then, where they were asked for. */
struct AnswerPiece {
  std::string content;
  std::string reasoning;
  std::span<const generate::AnswerToken> tokens;
};

/** What an answer took. */
struct Usage {
  int prompt_tokens = 0; // of all prompts
  int cached_tokens = 0; // of them, taken from kept prefixes
  int answer_tokens = 0; // of all choices
  int reasoning_tokens = 0; // of them
  double queue_seconds = 0; // until the first choice left the queue
  double prompt_seconds = 0; // from there to the first token
  double answer_seconds = 0; // from there to the last
};

/** Puts an answer into the form of a protocol. All calls come from the engine's
 * thread; the last one is `end` or `fail`. */
class AnswerWriter {
 public:
  virtual ~AnswerWriter() = default;
  /** The engine has taken all choices. */
  virtual void begin() = 0;
  /** False when nobody listens any more. */
  virtual bool write(std::size_t choice, const AnswerPiece& piece) = 0;
  /** The last of a choice; Stop or Length. */
  virtual void end_choice(
      std::size_t choice,
      const AnswerPiece& rest,
      generate::FinishReason reason) = 0;
  virtual void end(const Usage& usage) = 0;
  /** Before `begin`, or instead of what would follow. */
  virtual void fail(const ApiError& error) = 0;
};

/** One of the answers that a request asks for. */
struct Choice {
  generate::Request request; // without its listener
  generate::AnswerText text;
  /** The first one of its prompt, which counts the prompt in the usage. */
  bool counts_prompt = true;
  /** The field of the request to change where it is too long. */
  std::string length_field;
};

/**
 * All choices of one request, from the engine's queue to the writer's last
 * word: the one way from any protocol to the engine. Made anywhere, then on the
 * engine's thread only.
 */
class Job : public std::enable_shared_from_this<Job> {
 public:
  Job(std::vector<Choice> choices,
      std::unique_ptr<AnswerWriter> writer,
      Metrics& metrics,
      Clock::time_point received);
  ~Job();
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  /** Called when nothing more will be written. */
  void set_on_done(std::function<void()> call);
  /** Puts the choices into the queue, all or none. */
  void start(generate::Engine& engine);
  /** Ends what runs, with this as the last word. */
  void fail(const ApiError& error);
  /** Ends what runs: nobody listens. */
  void abandon();

 private:
  struct Track;
  class Listener;

  void on_start(std::size_t choice, int cached_tokens);
  bool on_token(std::size_t choice, const generate::AnswerToken& token);
  void on_end(std::size_t choice, const generate::Ending& ending);
  bool write(std::size_t choice, generate::AnswerText::Piece piece);
  void end_choice(
      std::size_t choice,
      generate::AnswerText::Piece rest,
      generate::FinishReason reason);
  void close();

  std::vector<std::unique_ptr<Track>> tracks_; // by choice
  std::unique_ptr<AnswerWriter> writer_;
  Metrics& metrics_;
  std::function<void()> on_done_;
  generate::Engine* engine_ = nullptr; // while choices run
  std::size_t n_running_ = 0;
  bool is_closed_ = false;
  Usage usage_;
  Clock::time_point received_;
  Clock::time_point started_;
  Clock::time_point first_token_;
  Clock::time_point last_token_;
};

} // namespace optiq::server
