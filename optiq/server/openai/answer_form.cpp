#include "optiq/server/openai/answer_form.h"

#include <map>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "optiq/server/openai/logprobs.h"

namespace optiq::server::openai {
namespace {

using artifacts::Json;

std::string compact(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string quote_or_null(const char* text) {
  return text == nullptr ? "null" : fmt::format("\"{}\"", text);
}

class ChatForm final : public AnswerForm {
 public:
  ChatForm(std::shared_ptr<const text::Tokenizer> tokenizer, bool logprobs)
      : tokenizer_(std::move(tokenizer)), logprobs_(logprobs) {}

  const char* id_prefix() const override {
    return "chatcmpl-";
  }
  const char* object() const override {
    return "chat.completion";
  }
  const char* chunk_object() const override {
    return "chat.completion.chunk";
  }

  std::string first(std::size_t choice) const override {
    return fmt::format(
        R"({{"index":{},"delta":{{"role":"assistant","content":""}},)"
        R"("logprobs":null,"finish_reason":null}})",
        choice);
  }

  std::string chunk(
      std::size_t choice,
      const AnswerPiece& piece,
      const char* finish_reason) override {
    std::string delta;
    if (!piece.reasoning.empty()) {
      const std::string text = quote(piece.reasoning);
      delta =
          fmt::format(R"("reasoning_content":{},"reasoning":{})", text, text);
    }
    if (!piece.content.empty()) {
      delta += fmt::format(
          R"({}"content":{})", delta.empty() ? "" : ",", quote(piece.content));
    }
    return fmt::format(
        R"({{"index":{},"delta":{{{}}},"logprobs":{},"finish_reason":{}}})",
        choice,
        delta,
        logprobs_ && !piece.tokens.empty()
            ? compact(chat_logprobs(piece.tokens, *tokenizer_))
            : "null",
        quote_or_null(finish_reason));
  }

  Json whole(std::size_t choice, const WholeChoice& text) const override {
    Json message{{"role", "assistant"}, {"content", text.content}};
    if (!text.reasoning.empty()) {
      message["reasoning_content"] = text.reasoning;
      message["reasoning"] = text.reasoning;
    }
    message["refusal"] = nullptr;
    return {
        {"index", choice},
        {"message", std::move(message)},
        {"logprobs",
         logprobs_ ? chat_logprobs(text.tokens, *tokenizer_) : Json()},
        {"finish_reason", text.finish_reason}};
  }

 private:
  std::shared_ptr<const text::Tokenizer> tokenizer_;
  bool logprobs_;
};

class TextForm final : public AnswerForm {
 public:
  TextForm(
      std::shared_ptr<const text::Tokenizer> tokenizer,
      bool logprobs,
      std::vector<std::string> echo)
      : tokenizer_(std::move(tokenizer)),
        logprobs_(logprobs),
        echo_(std::move(echo)) {}

  const char* id_prefix() const override {
    return "cmpl-";
  }
  const char* object() const override {
    return "text_completion";
  }
  const char* chunk_object() const override {
    return "text_completion";
  }

  std::string first(std::size_t choice) const override {
    return echo_.empty() ? ""
                         : chunk_of(choice, echo_[choice], "null", nullptr);
  }

  std::string chunk(
      std::size_t choice,
      const AnswerPiece& piece,
      const char* finish_reason) override {
    return chunk_of(
        choice,
        piece.content,
        logprobs_ && !piece.tokens.empty()
            ? compact(
                  text_logprobs(piece.tokens, *tokenizer_, offsets_[choice]))
            : "null",
        finish_reason);
  }

  Json whole(std::size_t choice, const WholeChoice& text) const override {
    std::size_t offset = 0;
    return {
        {"index", choice},
        {"text", echo_.empty() ? text.content : echo_[choice] + text.content},
        {"logprobs",
         logprobs_ ? text_logprobs(text.tokens, *tokenizer_, offset) : Json()},
        {"finish_reason", text.finish_reason}};
  }

 private:
  static std::string chunk_of(
      std::size_t choice,
      const std::string& text,
      std::string_view logprobs,
      const char* finish_reason) {
    return fmt::format(
        R"({{"index":{},"text":{},"logprobs":{},"finish_reason":{}}})",
        choice,
        quote(text),
        logprobs,
        quote_or_null(finish_reason));
  }

  std::shared_ptr<const text::Tokenizer> tokenizer_;
  bool logprobs_;
  std::vector<std::string> echo_; // by choice, or nothing
  std::map<std::size_t, std::size_t> offsets_; // of the next token, by choice
};

} // namespace

std::unique_ptr<AnswerForm> make_chat_form(
    std::shared_ptr<const text::Tokenizer> tokenizer,
    bool logprobs) {
  return std::make_unique<ChatForm>(std::move(tokenizer), logprobs);
}

std::unique_ptr<AnswerForm> make_text_form(
    std::shared_ptr<const text::Tokenizer> tokenizer,
    bool logprobs,
    std::vector<std::string> echo) {
  return std::make_unique<TextForm>(
      std::move(tokenizer), logprobs, std::move(echo));
}

std::string quote(const std::string& text) {
  return compact(Json(text));
}

} // namespace optiq::server::openai
