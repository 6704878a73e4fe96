#pragma once

#include <memory>
#include <string>
#include <vector>

#include "optiq/artifacts/json.h"
#include "optiq/generate/request.h"
#include "optiq/server/job.h"
#include "optiq/text/tokenizer.h"

namespace optiq::server::openai {

/** What all chunks of an answer begin with. */
struct AnswerHeader {
  std::string id; // without its prefix
  std::string model;
  std::string fingerprint;
  std::int64_t created = 0; // seconds since 1970
};

/** A choice's text as it grew, for answers that are sent whole. */
struct WholeChoice {
  std::string content;
  std::string reasoning;
  std::vector<generate::AnswerToken> tokens; // where they were asked for
  const char* finish_reason = nullptr;
};

/** How one of the two endpoints writes its choices. */
class AnswerForm {
 public:
  virtual ~AnswerForm() = default;
  virtual const char* id_prefix() const = 0; // "chatcmpl-"
  virtual const char* object() const = 0;
  virtual const char* chunk_object() const = 0;
  /** A choice's first chunk, as JSON text; empty: there is none. */
  virtual std::string first(std::size_t choice) const = 0;
  /** A chunk of a choice, as JSON text; with a reason its last. */
  virtual std::string chunk(
      std::size_t choice,
      const AnswerPiece& piece,
      const char* finish_reason) = 0;
  virtual artifacts::Json whole(std::size_t choice, const WholeChoice& text)
      const = 0;
};

/** message and delta. */
std::unique_ptr<AnswerForm> make_chat_form(
    std::shared_ptr<const text::Tokenizer> tokenizer,
    bool logprobs);

/** text, which begins with `echo` of the choice where there is one. */
std::unique_ptr<AnswerForm> make_text_form(
    std::shared_ptr<const text::Tokenizer> tokenizer,
    bool logprobs,
    std::vector<std::string> echo);

/** The text as a JSON string. */
std::string quote(const std::string& text);

} // namespace optiq::server::openai
