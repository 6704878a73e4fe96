#include "optiq/server/job.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "optiq/server/request_error.h"

namespace optiq::server {
namespace {

using generate::FinishReason;

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

/** Of a request that the engine does not take. Its fields were checked: what is
 * left is the length of prompt and answer. */
ApiError refusal_of_engine(
    const std::exception_ptr& error,
    const std::string& length_field) {
  ApiError refusal = api_error_of(error);
  if (refusal.status == 400) {
    refusal.code = "context_length_exceeded";
    refusal.param = length_field;
  }
  return refusal;
}

} // namespace

/** A choice while it runs. */
struct Job::Track {
  explicit Track(Choice of) : choice(std::move(of)) {}

  Choice choice;
  generate::RequestId id{};
  bool is_running = false;
  bool is_started = false;
  bool is_stopped = false; // by a stop string
  bool wants_tokens = false;
  std::vector<generate::AnswerToken> tokens; // of the next piece
  int n_tokens = 0;
  Clock::time_point last_token;
};

/** Keeps the job alive as long as the engine knows of the choice. */
class Job::Listener final : public generate::RequestListener {
 public:
  Listener(std::shared_ptr<Job> job, std::size_t choice)
      : job_(std::move(job)), choice_(choice) {}

  void on_start(int cached_tokens) override {
    job_->on_start(choice_, cached_tokens);
  }
  bool on_token(const generate::AnswerToken& token) override {
    return job_->on_token(choice_, token);
  }
  void on_end(const generate::Ending& ending) override {
    job_->on_end(choice_, ending);
  }

 private:
  std::shared_ptr<Job> job_;
  std::size_t choice_;
};

Job::Job(
    std::vector<Choice> choices,
    std::unique_ptr<AnswerWriter> writer,
    Metrics& metrics,
    Clock::time_point received)
    : writer_(std::move(writer)), metrics_(metrics), received_(received) {
  for (Choice& choice : choices) {
    if (choice.counts_prompt) {
      usage_.prompt_tokens += static_cast<int>(choice.request.prompt.size());
    }
    tracks_.push_back(std::make_unique<Track>(std::move(choice)));
    Track& track = *tracks_.back();
    track.wants_tokens = track.choice.request.top_logprobs.has_value();
  }
}

/** Without a last word only where the engine went before it could have one. */
Job::~Job() {
  if (!is_closed_ && on_done_) {
    on_done_();
  }
}

void Job::set_on_done(std::function<void()> call) {
  on_done_ = std::move(call);
}

void Job::start(generate::Engine& engine) {
  if (is_closed_) {
    return;
  }
  engine_ = &engine;
  try {
    for (std::size_t i = 0; i < tracks_.size(); ++i) {
      Track& track = *tracks_[i];
      track.choice.request.listener =
          std::make_shared<Listener>(shared_from_this(), i);
      track.id = engine.submit(std::move(track.choice.request));
      track.is_running = true;
      ++n_running_;
    }
  } catch (...) {
    fail(refusal_of_engine(
        std::current_exception(), tracks_.front()->choice.length_field));
    return;
  }
  writer_->begin();
}

void Job::fail(const ApiError& error) {
  if (!is_closed_) {
    metrics_.count_answer(AnswerEnd::Failed);
    writer_->fail(error);
    close();
  }
}

void Job::abandon() {
  if (!is_closed_) {
    metrics_.count_answer(AnswerEnd::Abandoned);
    close();
  }
}

/** Nothing is written from here on; the engine's last words find it closed. */
void Job::close() {
  if (std::exchange(is_closed_, true)) {
    return;
  }
  for (const auto& track : tracks_) {
    if (std::exchange(track->is_running, false)) {
      engine_->cancel(track->id);
    }
  }
  if (on_done_) {
    std::exchange(on_done_, nullptr)();
  }
}

void Job::on_start(std::size_t choice, int cached_tokens) {
  Track& track = *tracks_[choice];
  if (is_closed_ || std::exchange(track.is_started, true)) {
    return;
  }
  if (track.choice.counts_prompt) {
    usage_.cached_tokens += cached_tokens;
  }
  if (started_ == Clock::time_point()) {
    started_ = Clock::now();
    usage_.queue_seconds = seconds_between(received_, started_);
    metrics_.queue_seconds.observe(usage_.queue_seconds);
  }
}

bool Job::on_token(std::size_t choice, const generate::AnswerToken& token) {
  if (is_closed_) {
    return false;
  }
  Track& track = *tracks_[choice];
  const auto now = Clock::now();
  if (usage_.answer_tokens == 0) {
    first_token_ = now;
    metrics_.first_token_seconds.observe(seconds_between(received_, now));
  }
  if (track.n_tokens > 0) {
    metrics_.inter_token_seconds.observe(
        seconds_between(track.last_token, now));
  }
  track.last_token = last_token_ = now;
  ++track.n_tokens;
  ++usage_.answer_tokens;
  if (track.wants_tokens) {
    track.tokens.push_back(token);
  }
  auto piece = track.choice.text.push(token.id);
  track.is_stopped = piece.stopped;
  if (!write(choice, std::move(piece))) {
    abandon();
    return false;
  }
  return !track.is_stopped;
}

bool Job::write(std::size_t choice, generate::AnswerText::Piece piece) {
  if (piece.content.empty() && piece.reasoning.empty()) {
    return true; // its tokens go with the text that they become
  }
  Track& track = *tracks_[choice];
  const bool is_heard = writer_->write(
      choice,
      {.content = std::move(piece.content),
       .reasoning = std::move(piece.reasoning),
       .tokens = track.tokens});
  track.tokens.clear();
  return is_heard;
}

void Job::on_end(std::size_t choice, const generate::Ending& ending) {
  Track& track = *tracks_[choice];
  if (is_closed_) {
    return;
  }
  track.is_running = false;
  switch (ending.reason) {
    case FinishReason::Failed:
      fail(api_error_of(ending.error));
      return;
    case FinishReason::Cancelled:
      fail(
          {.status = 503,
           .message = "[serve] the answer was cancelled",
           .code = "cancelled"});
      return;
    case FinishReason::Stop:
    case FinishReason::Length:
      break;
  }
  const bool is_stop = ending.reason == FinishReason::Stop || track.is_stopped;
  end_choice(
      choice,
      track.is_stopped ? generate::AnswerText::Piece{}
                       : track.choice.text.finish(),
      is_stop ? FinishReason::Stop : FinishReason::Length);
}

void Job::end_choice(
    std::size_t choice,
    generate::AnswerText::Piece rest,
    FinishReason reason) {
  Track& track = *tracks_[choice];
  usage_.reasoning_tokens += track.choice.text.reasoning_tokens();
  writer_->end_choice(
      choice,
      {.content = std::move(rest.content),
       .reasoning = std::move(rest.reasoning),
       .tokens = track.tokens},
      reason);
  metrics_.answer_tokens.observe(track.n_tokens);
  if (--n_running_ > 0) {
    return;
  }
  if (usage_.answer_tokens > 0) {
    usage_.prompt_seconds = seconds_between(started_, first_token_);
    usage_.answer_seconds = seconds_between(first_token_, last_token_);
  }
  metrics_.prompt_tokens.observe(usage_.prompt_tokens);
  metrics_.count_answer(
      reason == FinishReason::Stop ? AnswerEnd::Stop : AnswerEnd::Length);
  writer_->end(usage_);
  close();
}

} // namespace optiq::server
