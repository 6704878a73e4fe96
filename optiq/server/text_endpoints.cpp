#include <algorithm>
#include <limits>
#include <utility>

#include "optiq/base/utf8.h"
#include "optiq/server/endpoints_impl.h"
#include "optiq/server/fields.h"
#include "optiq/server/openai/conversation.h"
#include "optiq/server/request_body.h"
#include "optiq/server/request_error.h"

namespace optiq::server {
namespace {

using artifacts::Json;

constexpr std::size_t kMaxText = 64u << 20; // bytes: as a body
constexpr std::size_t kMaxIds = 1u << 19;

struct TokenizeRequest {
  std::string content;
  bool add_special = false;
  bool with_pieces = false;
};

const Fields<TokenizeRequest>& tokenize_fields() {
  using R = TokenizeRequest;
  static const Fields<R> fields{
      {{"content", string(0, kMaxText), "The text.", true}, into(&R::content)},
      {{"add_special",
        boolean(),
        "Adds the tokens that begin a text, as /v1/completions does."},
       into(&R::add_special)},
      {{"with_pieces",
        boolean(),
        "Gives each token as an object with the text that it stands for, or "
        "its bytes where they are no UTF-8."},
       into(&R::with_pieces)}};
  return fields;
}

struct DetokenizeRequest {
  std::vector<std::int32_t> tokens;
};

const Fields<DetokenizeRequest>& detokenize_fields() {
  using R = DetokenizeRequest;
  static const Fields<R> fields{
      {{"tokens",
        list(integer(0, std::numeric_limits<std::int32_t>::max()), 0, kMaxIds),
        "The ids.",
        true},
       into(&R::tokens)}};
  return fields;
}

bool is_utf8(std::string_view bytes) {
  while (!bytes.empty()) {
    const Utf8Step step = step_utf8(bytes);
    if (step.kind != Utf8Step::Kind::Character) {
      return false;
    }
    bytes.remove_prefix(step.length);
  }
  return true;
}

Json piece_json(const text::Tokenizer& tokenizer, std::int32_t id) {
  const std::string bytes = tokenizer.token_bytes(id);
  Json piece = bytes;
  if (!is_utf8(bytes)) {
    piece = Json::array();
    for (const char c : bytes) {
      piece.push_back(static_cast<unsigned char>(c));
    }
  }
  return {{"id", id}, {"piece", std::move(piece)}};
}

template <typename Request>
Request read_request(const Call& call, const Fields<Request>& fields) {
  const std::string& path = call.request.path;
  return read_fields(parse_body(call.request.body, path), fields, path);
}

} // namespace

Schema tokenize_body() {
  return schema_of(tokenize_fields());
}

void tokenize(ServiceState& state, Call& call) {
  const auto request = read_request(call, tokenize_fields());
  const text::Tokenizer& tokenizer = *state.model.tokenizer;
  const auto ids = tokenizer.encode(request.content, request.add_special);
  Json tokens = Json::array();
  for (const std::int32_t id : ids) {
    tokens.push_back(
        request.with_pieces ? piece_json(tokenizer, id) : Json(id));
  }
  const Json result{{"tokens", std::move(tokens)}, {"count", ids.size()}};
  respond_json(call, result);
}

Schema detokenize_body() {
  return schema_of(detokenize_fields());
}

void detokenize(ServiceState& state, Call& call) {
  const auto request = read_request(call, detokenize_fields());
  const Json result{
      {"content", state.model.tokenizer->decode(request.tokens, false)}};
  respond_json(call, result);
}

Schema apply_template_body() {
  return schema_of(openai::conversation_fields());
}

void apply_template(ServiceState& state, Call& call) {
  const auto request = read_request(call, openai::conversation_fields());
  const Json result{
      {"prompt", openai::render_conversation(state.model, request)}};
  respond_json(call, result);
}

} // namespace optiq::server
