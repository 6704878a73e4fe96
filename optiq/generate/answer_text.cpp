#include "optiq/generate/answer_text.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "optiq/base/error.h"
#include "optiq/base/utf8.h"
#include "optiq/generate/reasoning_split_impl.h"
#include "optiq/generate/text_units_impl.h"

namespace optiq::generate {
namespace {

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Step step = step_utf8(text);
    if (step.kind != Utf8Step::Kind::Character) {
      return false;
    }
    text.remove_prefix(step.length);
  }
  return true;
}

void check(const AnswerTextOptions& options) {
  for (const std::string& stop : options.stop_strings) {
    if (stop.empty() || !is_utf8(stop)) {
      fail(
          ErrorKind::InvalidInput,
          "[AnswerText] found a stop string that is {}, expected text",
          stop.empty() ? "empty" : "no UTF-8");
    }
  }
  if (options.starts_in_reasoning && !options.reasoning) {
    fail(
        ErrorKind::InvalidInput,
        "[AnswerText] the answer starts in reasoning, and there are no markers "
        "that end it");
  }
}

/** Gives out text up to a stop string. */
class StopMatcher {
 public:
  StopMatcher(const std::vector<std::string>& strings, bool keeps)
      : keeps_(keeps) {
    for (const std::string& string : strings) {
      Units units;
      append_units(units, string, 0);
      matchers_.emplace_back(std::move(units), false);
    }
  }

  /** Appends to `out` what became certain. The index of the stop string that
   * is complete, or nothing. */
  std::optional<std::size_t> push(std::u16string_view units, Units& out) {
    for (const Unit unit : units) {
      held_.push_back(unit);
      if (const auto found = push_unit(unit)) {
        const std::size_t length = matchers_[*found].size();
        out.append(held_, 0, held_.size() - (keeps_ ? 0 : length));
        held_.clear();
        return found;
      }
      std::size_t matched = 0;
      for (const PatternMatcher& matcher : matchers_) {
        matched = std::max(matched, matcher.matched());
      }
      out.append(held_, 0, held_.size() - matched);
      held_.erase(0, held_.size() - matched);
    }
    return std::nullopt;
  }
  void finish(Units& out) {
    out += std::exchange(held_, {});
  }

 private:
  /** The longest one that ends here. */
  std::optional<std::size_t> push_unit(Unit unit) {
    std::optional<std::size_t> found;
    for (std::size_t i = 0; i < matchers_.size(); ++i) {
      if (matchers_[i].push(unit) &&
          (!found || matchers_[i].size() > matchers_[*found].size())) {
        found = i;
      }
    }
    return found;
  }

  bool keeps_;
  std::vector<PatternMatcher> matchers_;
  Units held_;
};

/** How many bytes of a text are the special token that it begins with. */
std::size_t special_length(
    const std::string& text,
    const text::Tokenizer& tokenizer) {
  for (std::size_t n = text.size(); n > 0; --n) {
    const auto id = tokenizer.token_to_id(std::string_view(text).substr(0, n));
    if (id && tokenizer.is_special(*id)) {
      return n;
    }
  }
  return 0;
}

} // namespace

struct AnswerText::State {
  State(
      std::shared_ptr<const text::Tokenizer> the_tokenizer,
      AnswerTextOptions the_options)
      : tokenizer(std::move(the_tokenizer)),
        options(std::move(the_options)),
        detokenizer(tokenizer, true),
        stops(options.stop_strings, options.keep_stop_string) {
    if (options.reasoning) {
      split.emplace(
          *options.reasoning,
          special_length(options.reasoning->open, *tokenizer),
          options.starts_in_reasoning);
    }
  }

  /** Sends units through the stop strings, and what leaves them to its part. */
  void take(const Units& units, Piece& piece) {
    Units certain;
    const auto stop = stops.push(units, certain);
    hand_out(certain, piece);
    if (stop) {
      piece.stopped = has_ended = true;
      piece.stop_string = options.stop_strings[*stop];
      finish_split(piece);
    }
  }
  void hand_out(const Units& units, Piece& piece) {
    if (!split) {
      append_text(piece.content, units);
      return;
    }
    for (const Unit unit : units) {
      split->push(unit, {piece.content, piece.reasoning});
    }
  }
  void finish_split(Piece& piece) {
    if (split) {
      split->finish({piece.content, piece.reasoning});
    }
  }
  bool is_reasoning() const {
    return split && split->is_reasoning();
  }

  std::shared_ptr<const text::Tokenizer> tokenizer;
  AnswerTextOptions options;
  text::StreamingDetokenizer detokenizer;
  StopMatcher stops;
  std::optional<ReasoningSplit> split;
  int reasoning_tokens = 0;
  bool has_ended = false;
};

AnswerText::AnswerText(
    std::shared_ptr<const text::Tokenizer> tokenizer,
    AnswerTextOptions options) {
  check(options);
  state_ = std::make_unique<State>(std::move(tokenizer), std::move(options));
}

AnswerText::~AnswerText() = default;
AnswerText::AnswerText(AnswerText&&) noexcept = default;
AnswerText& AnswerText::operator=(AnswerText&&) noexcept = default;

AnswerText::Piece AnswerText::push(std::int32_t token) {
  State& s = *state_;
  Piece piece;
  if (s.has_ended) {
    return piece;
  }
  const bool was_reasoning = s.is_reasoning();
  Units units;
  if (s.tokenizer->is_special(token)) {
    append_units(units, s.tokenizer->decode({token}, false), kSpecial);
  } else {
    append_units(units, s.detokenizer.push(token), 0);
  }
  s.take(units, piece);
  s.reasoning_tokens += was_reasoning || s.is_reasoning() ? 1 : 0;
  return piece;
}

AnswerText::Piece AnswerText::finish() {
  State& s = *state_;
  Piece piece;
  if (s.has_ended) {
    return piece;
  }
  Units units;
  append_units(units, s.detokenizer.finish(), 0);
  s.take(units, piece);
  if (!s.has_ended) {
    s.has_ended = true;
    Units rest;
    s.stops.finish(rest);
    s.hand_out(rest, piece);
    s.finish_split(piece);
  }
  return piece;
}

int AnswerText::reasoning_tokens() const {
  return state_->reasoning_tokens;
}

} // namespace optiq::generate
