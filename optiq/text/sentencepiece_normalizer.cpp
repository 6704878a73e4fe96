#include <algorithm>

#include "optiq/text/sentencepiece_normalizer_impl.h"
#include "optiq/text/unicode_impl.h"

namespace optiq::text {

/** What the first part of `text` that has a rule of its own, or its first
 * character, becomes; it is removed from `text`. */
std::string_view SentencePieceNormalizer::take(std::string_view& text) const {
  std::size_t size = 0;
  if (user_defined) {
    user_defined->for_each_prefix(
        text, [&](std::size_t bytes, std::uint32_t) { size = bytes; });
  }
  if (size == 0 && charsmap) {
    if (const auto rule = charsmap->longest_rule(text)) {
      text.remove_prefix(rule->bytes);
      return rule->content;
    }
  }
  if (size == 0) {
    size = decode_character(text.data()).length;
  }
  const std::string_view taken = text.substr(0, size);
  text.remove_prefix(size);
  return taken;
}

std::string SentencePieceNormalizer::apply(std::string_view text, bool at_start)
    const {
  const std::string_view space = mark_spaces ? kSpaceMark : " ";
  const bool is_text =
      at_start || dummy_space == DummySpace::EveryPart; // not a later part
  const bool adds_space = dummy_space != DummySpace::None && is_text;
  std::string out;
  out.reserve(text.size() + text.size() / 2 + 2 * space.size());
  bool drops_spaces = remove_extra_spaces && is_text;
  bool is_blank = true; // so far nothing but spaces that are dropped
  while (!text.empty()) {
    std::string_view taken = take(text);
    if (is_blank && drops_spaces && taken == " ") {
      continue;
    }
    if (is_blank) {
      is_blank = false;
      // A later part has one space at most, as transformers has it.
      const bool has_space = !at_start &&
          (taken.starts_with(' ') || taken.starts_with(kSpaceMark));
      if (adds_space && !dummy_space_behind && !has_space) {
        out += space;
      }
    }
    while (drops_spaces && taken.starts_with(' ')) {
      taken.remove_prefix(1);
    }
    for (const char c : taken) {
      if (c == ' ') {
        out += space;
      } else {
        out += c;
      }
    }
    if (!taken.empty()) {
      drops_spaces = remove_extra_spaces && taken.ends_with(' ');
    }
  }
  if (is_blank) {
    return out;
  }
  while (remove_extra_spaces && out.ends_with(space)) {
    out.resize(out.size() - space.size());
  }
  if (adds_space && dummy_space_behind) {
    out += space;
  }
  return out;
}

} // namespace optiq::text
