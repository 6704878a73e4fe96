#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "optiq/generate/text_units_impl.h"
#include "optiq/text/reasoning.h"

namespace optiq::generate {

/** Sends the text of an answer to reasoning or content, without the markers and
 * the newlines at them (answer_text.h says which). */
class ReasoningSplit {
 public:
  struct Sink {
    std::string& content;
    std::string& reasoning;
  };

  /** `special_length` bytes of the opening marker are a special token. */
  ReasoningSplit(
      const text::ReasoningMarkers& markers,
      std::size_t special_length,
      bool starts_in_reasoning);

  void push(Unit unit, const Sink& sink);
  /** What was held back. */
  void finish(const Sink& sink);
  bool is_reasoning() const {
    return part_ == Part::Reasoning;
  }

 private:
  enum class Part { Beginning, Reasoning, Content };

  void push_beginning(Unit unit, const Sink& sink);
  void push_reasoning(Unit unit, const Sink& sink);
  void push_content(Unit unit, const Sink& sink);
  void enter(Part part);
  /** Gives out the first n of what is held. */
  void release(std::size_t n, const Sink& sink);

  PatternMatcher open_; // at the beginning
  std::optional<PatternMatcher> reopen_; // later on
  PatternMatcher close_;
  Part part_;
  bool at_edge_; // newlines are dropped
  Units held_;
};

} // namespace optiq::generate
