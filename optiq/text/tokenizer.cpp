#include "optiq/text/tokenizer.h"

#include "optiq/text/tokenizer_impl.h"
#include "optiq/text/unicode_impl.h"

namespace optiq::text {

std::optional<std::string_view> Tokenizer::Impl::spelling(
    std::int32_t id) const {
  if (id < 0) {
    return std::nullopt;
  }
  const auto key = static_cast<std::uint32_t>(id);
  if (const auto form = normalized_form.find(key);
      form != normalized_form.end()) {
    return form->second;
  }
  if (const auto token = added_by_id.find(key); token != added_by_id.end()) {
    return token->second->content;
  }
  return vocabulary.token(key);
}

bool Tokenizer::Impl::is_special(std::int32_t id) const {
  const auto token = added_by_id.find(static_cast<std::uint32_t>(id));
  return token != added_by_id.end() && token->second->special;
}

/** Appends the ids of valid UTF-8. */
template <typename Model>
void Tokenizer::Impl::encode(
    const Model& token_model,
    std::string_view text,
    std::vector<std::int32_t>& ids) const {
  typename Model::Scratch scratch;
  PatternRun run(text.size());
  const auto encode_plain = [&](std::string_view plain, bool at_start) {
    const Pieces pieces =
        pre_tokenizer.apply(std::string(plain), at_start, run);
    for (const TextRange& range : pieces.ranges) {
      token_model.encode(
          std::string_view(pieces.text)
              .substr(range.begin, range.end - range.begin),
          scratch,
          ids);
    }
  };
  for (const TextSection& outer : raw_finder.split(text)) {
    if (outer.token != nullptr) {
      ids.push_back(static_cast<std::int32_t>(outer.token->id));
      continue;
    }
    const std::string normalized = sentencepiece
        ? sentencepiece->apply(outer.text, outer.text.data() == text.data())
        : normalizer.apply(outer.text, run);
    for (const TextSection& inner : normalized_finder.split(normalized)) {
      if (inner.token != nullptr) {
        ids.push_back(static_cast<std::int32_t>(inner.token->id));
        continue;
      }
      const bool at_start = outer.text.data() == text.data() &&
          inner.text.data() == normalized.data();
      encode_plain(inner.text, at_start);
    }
  }
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Tokenizer::~Tokenizer() = default;

std::vector<std::int32_t> Tokenizer::encode(
    std::string_view text,
    bool add_special_tokens) const {
  std::string replaced;
  if (!is_valid_utf8(text)) {
    append_lossy(replaced, text, false);
    text = replaced;
  }
  std::vector<std::int32_t> ids;
  if (add_special_tokens) {
    ids = impl_->frame.before;
  }
  std::visit(
      [&](const auto& model) { impl_->encode(model, text, ids); },
      *impl_->model);
  if (add_special_tokens) {
    const auto& after = impl_->frame.after;
    ids.insert(ids.end(), after.begin(), after.end());
  }
  return ids;
}

std::string Tokenizer::decode(
    const std::vector<std::int32_t>& ids,
    bool skip_special_tokens) const {
  std::string text;
  TokenDecoder::Stream stream = impl_->decoder.start();
  for (const std::int32_t id : ids) {
    const auto spelling = impl_->spelling(id);
    if (spelling && !(skip_special_tokens && impl_->is_special(id))) {
      impl_->decoder.push(stream, *spelling, text);
    }
  }
  impl_->decoder.finish(stream, text);
  return text;
}

std::string Tokenizer::token_bytes(std::int32_t id) const {
  const auto spelling = impl_->spelling(id);
  return spelling ? impl_->decoder.token_bytes(*spelling) : std::string();
}

bool Tokenizer::is_special(std::int32_t id) const {
  return impl_->is_special(id);
}

std::optional<std::int32_t> Tokenizer::token_to_id(
    std::string_view token) const {
  const auto added = impl_->added_ids.find(std::string(token));
  if (added != impl_->added_ids.end()) {
    return static_cast<std::int32_t>(added->second);
  }
  const auto id = impl_->vocabulary.find(token);
  return id ? std::optional(static_cast<std::int32_t>(*id)) : std::nullopt;
}

std::int32_t Tokenizer::vocab_size() const {
  return static_cast<std::int32_t>(impl_->id_limit);
}

struct StreamingDetokenizer::State {
  TokenDecoder::Stream stream;
};

StreamingDetokenizer::StreamingDetokenizer(
    std::shared_ptr<const Tokenizer> tokenizer,
    bool skip_special_tokens)
    : tokenizer_(std::move(tokenizer)),
      skip_special_tokens_(skip_special_tokens),
      state_(
          std::make_unique<State>(State{tokenizer_->impl_->decoder.start()})) {}

StreamingDetokenizer::~StreamingDetokenizer() = default;
StreamingDetokenizer::StreamingDetokenizer(StreamingDetokenizer&&) noexcept =
    default;
StreamingDetokenizer& StreamingDetokenizer::operator=(
    StreamingDetokenizer&&) noexcept = default;

std::string StreamingDetokenizer::push(std::int32_t id) {
  std::string text;
  const Tokenizer::Impl& impl = *tokenizer_->impl_;
  const auto spelling = impl.spelling(id);
  if (spelling && !(skip_special_tokens_ && impl.is_special(id))) {
    impl.decoder.push(state_->stream, *spelling, text);
  }
  return text;
}

std::string StreamingDetokenizer::finish() {
  std::string text;
  tokenizer_->impl_->decoder.finish(state_->stream, text);
  return text;
}

} // namespace optiq::text
