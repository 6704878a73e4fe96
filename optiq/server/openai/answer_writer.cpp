#include "optiq/server/openai/answer_writer.h"

#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "optiq/server/request_error.h"

namespace optiq::server::openai {
namespace {

using artifacts::Json;
using generate::FinishReason;

const char* reason_name(FinishReason reason) {
  return reason == FinishReason::Stop ? "stop" : "length";
}

Json usage_json(const Usage& usage) {
  return {
      {"prompt_tokens", usage.prompt_tokens},
      {"completion_tokens", usage.answer_tokens},
      {"total_tokens", usage.prompt_tokens + usage.answer_tokens},
      {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
      {"completion_tokens_details",
       {{"reasoning_tokens", usage.reasoning_tokens}}}};
}

double per_second(int n, double seconds) {
  return n > 0 && seconds > 0 ? n / seconds : 0;
}

/** With the names of llama.cpp's server. The first token belongs to the
 * prompt's time. */
Json timings_json(const Usage& usage) {
  const int computed = usage.prompt_tokens - usage.cached_tokens;
  return {
      {"queue_ms", usage.queue_seconds * 1e3},
      {"cache_n", usage.cached_tokens},
      {"prompt_n", computed},
      {"prompt_ms", usage.prompt_seconds * 1e3},
      {"prompt_per_second", per_second(computed, usage.prompt_seconds)},
      {"predicted_n", usage.answer_tokens},
      {"predicted_ms", usage.answer_seconds * 1e3},
      {"predicted_per_second",
       per_second(usage.answer_tokens - 1, usage.answer_seconds)}};
}

class WholeWriter final : public AnswerWriter {
 public:
  WholeWriter(
      std::shared_ptr<HttpReply> reply,
      AnswerHeader header,
      std::unique_ptr<AnswerForm> form,
      std::size_t n_choices)
      : reply_(std::move(reply)),
        header_(std::move(header)),
        form_(std::move(form)),
        choices_(n_choices) {}

  void begin() override {}

  bool write(std::size_t choice, const AnswerPiece& piece) override {
    WholeChoice& whole = choices_[choice];
    whole.content += piece.content;
    whole.reasoning += piece.reasoning;
    whole.tokens.insert(
        whole.tokens.end(), piece.tokens.begin(), piece.tokens.end());
    return true;
  }

  void end_choice(
      std::size_t choice,
      const AnswerPiece& rest,
      FinishReason reason) override {
    write(choice, rest);
    choices_[choice].finish_reason = reason_name(reason);
  }

  void end(const Usage& usage) override {
    Json choices = Json::array();
    for (std::size_t i = 0; i < choices_.size(); ++i) {
      choices.push_back(form_->whole(i, choices_[i]));
    }
    const Json answer{
        {"id", form_->id_prefix() + header_.id},
        {"object", form_->object()},
        {"created", header_.created},
        {"model", header_.model},
        {"system_fingerprint", header_.fingerprint},
        {"choices", std::move(choices)},
        {"usage", usage_json(usage)},
        {"timings", timings_json(usage)}};
    reply_->respond({.body = artifacts::dump_json(answer, -1)});
  }

  void fail(const ApiError& error) override {
    reply_->respond(refusal(error));
  }

 private:
  std::shared_ptr<HttpReply> reply_;
  AnswerHeader header_;
  std::unique_ptr<AnswerForm> form_;
  std::vector<WholeChoice> choices_;
};

class StreamWriter final : public AnswerWriter {
 public:
  StreamWriter(
      std::shared_ptr<HttpReply> reply,
      const AnswerHeader& header,
      std::unique_ptr<AnswerForm> form,
      std::size_t n_choices,
      bool include_usage)
      : reply_(std::move(reply)),
        form_(std::move(form)),
        n_choices_(n_choices),
        include_usage_(include_usage),
        // What is the same in every chunk is written once.
        before_(fmt::format(
            R"(data: {{"id":"{}{}","object":"{}","created":{},"model":{},)"
            R"("system_fingerprint":{},"choices":[)",
            form_->id_prefix(),
            header.id,
            form_->chunk_object(),
            header.created,
            quote(header.model),
            quote(header.fingerprint))),
        after_(include_usage ? "],\"usage\":null}\n\n" : "]}\n\n") {}

  void begin() override {
    has_begun_ = true;
    reply_->begin_stream();
    for (std::size_t i = 0; i < n_choices_; ++i) {
      if (const std::string first = form_->first(i); !first.empty()) {
        send(first);
      }
    }
  }

  bool write(std::size_t choice, const AnswerPiece& piece) override {
    return send(form_->chunk(choice, piece, nullptr));
  }

  void end_choice(
      std::size_t choice,
      const AnswerPiece& rest,
      FinishReason reason) override {
    if (!rest.content.empty() || !rest.reasoning.empty()) {
      send(form_->chunk(choice, rest, nullptr));
      send(form_->chunk(choice, {}, reason_name(reason)));
    } else {
      send(form_->chunk(choice, rest, reason_name(reason)));
    }
  }

  void end(const Usage& usage) override {
    std::string last;
    if (include_usage_) {
      last = fmt::format(
          "{}],\"usage\":{},\"timings\":{}}}\n\n",
          before_,
          usage_json(usage).dump(),
          timings_json(usage).dump());
    }
    reply_->write(last + "data: [DONE]\n\n");
    reply_->end_stream();
  }

  void fail(const ApiError& error) override {
    if (!has_begun_) {
      reply_->respond(refusal(error));
      return;
    }
    const Json event = error_json(error);
    reply_->write(fmt::format(
        "data: {}\n\n",
        event.dump(-1, ' ', false, Json::error_handler_t::replace)));
    reply_->end_stream();
  }

 private:
  bool send(std::string_view choice) {
    std::string event;
    event.reserve(before_.size() + choice.size() + after_.size());
    event.append(before_).append(choice).append(after_);
    return reply_->write(std::move(event));
  }

  std::shared_ptr<HttpReply> reply_;
  std::unique_ptr<AnswerForm> form_;
  std::size_t n_choices_;
  bool include_usage_;
  bool has_begun_ = false;
  std::string before_;
  std::string after_;
};

} // namespace

std::unique_ptr<AnswerWriter> make_whole_writer(
    std::shared_ptr<HttpReply> reply,
    AnswerHeader header,
    std::unique_ptr<AnswerForm> form,
    std::size_t n_choices) {
  return std::make_unique<WholeWriter>(
      std::move(reply), std::move(header), std::move(form), n_choices);
}

std::unique_ptr<AnswerWriter> make_stream_writer(
    std::shared_ptr<HttpReply> reply,
    const AnswerHeader& header,
    std::unique_ptr<AnswerForm> form,
    std::size_t n_choices,
    bool include_usage) {
  return std::make_unique<StreamWriter>(
      std::move(reply), header, std::move(form), n_choices, include_usage);
}

} // namespace optiq::server::openai
