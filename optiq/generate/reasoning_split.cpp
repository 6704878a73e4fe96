#include <algorithm>
#include <string_view>
#include <utility>

#include "optiq/generate/reasoning_split_impl.h"

namespace optiq::generate {
namespace {

constexpr std::u16string_view kWhiteSpace = u" \t\r\n";

Units units_of(std::string_view text, std::size_t special_length = 0) {
  Units units;
  append_units(units, text.substr(0, special_length), kSpecial);
  append_units(units, text.substr(special_length), 0);
  return units;
}

/** Whether text shows nothing of it. */
bool is_blank(std::u16string_view units) {
  return std::all_of(units.begin(), units.end(), [](Unit unit) {
    return (unit & kSpecial) != 0 ||
        kWhiteSpace.find(unit) != std::u16string_view::npos;
  });
}

} // namespace

ReasoningSplit::ReasoningSplit(
    const text::ReasoningMarkers& markers,
    std::size_t special_length,
    bool starts_in_reasoning)
    : open_(units_of(markers.open), false),
      close_(units_of(markers.close), false),
      part_(starts_in_reasoning ? Part::Reasoning : Part::Beginning),
      at_edge_(starts_in_reasoning) {
  if (special_length > 0) {
    reopen_.emplace(units_of(markers.open, special_length), true);
  }
}

void ReasoningSplit::push(Unit unit, const Sink& sink) {
  switch (part_) {
    case Part::Beginning:
      return push_beginning(unit, sink);
    case Part::Reasoning:
      return push_reasoning(unit, sink);
    case Part::Content:
      return push_content(unit, sink);
  }
}

void ReasoningSplit::finish(const Sink& sink) {
  release(held_.size(), sink);
}

void ReasoningSplit::push_beginning(Unit unit, const Sink& sink) {
  held_.push_back(unit);
  if (open_.push(unit)) {
    enter(Part::Reasoning);
    return;
  }
  const std::u16string_view held(held_);
  if (!is_blank(held.substr(0, held.size() - open_.matched()))) {
    const Units text = std::exchange(held_, {});
    enter(Part::Content);
    at_edge_ = false;
    for (const Unit u : text) {
      push_content(u, sink);
    }
  }
}

void ReasoningSplit::push_reasoning(Unit unit, const Sink& sink) {
  held_.push_back(unit);
  if (close_.push(unit)) {
    enter(Part::Content);
    return;
  }
  // Newlines may be those before the closing marker.
  const std::size_t before = held_.size() - close_.matched();
  const std::size_t last =
      std::u16string_view(held_).substr(0, before).find_last_not_of(u'\n');
  release(last == Units::npos ? 0 : last + 1, sink);
  if (at_edge_) {
    held_.erase(0, held_.size() - close_.matched());
  }
}

void ReasoningSplit::push_content(Unit unit, const Sink& sink) {
  held_.push_back(unit);
  if (reopen_ && reopen_->push(unit)) {
    enter(Part::Reasoning);
    return;
  }
  release(held_.size() - (reopen_ ? reopen_->matched() : 0), sink);
}

void ReasoningSplit::enter(Part part) {
  part_ = part;
  at_edge_ = true;
  held_.clear();
  open_.reset();
  close_.reset();
  if (reopen_) {
    reopen_->reset();
  }
}

void ReasoningSplit::release(std::size_t n, const Sink& sink) {
  std::string text;
  append_text(text, std::u16string_view(held_).substr(0, n));
  held_.erase(0, n);
  if (at_edge_) {
    text.erase(0, text.find_first_not_of('\n'));
    at_edge_ = text.empty();
  }
  (is_reasoning() ? sink.reasoning : sink.content) += text;
}

} // namespace optiq::generate
