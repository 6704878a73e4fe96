#include <algorithm>

#include "optiq/text/added_tokens_impl.h"
#include "optiq/text/unicode_impl.h"

namespace optiq::text {
namespace {

bool has_class(std::string_view text, std::size_t at, std::uint16_t wanted) {
  const std::uint32_t c = decode_character(text.data() + at).code_point;
  return (CharacterClasses::instance().of(c) & wanted) != 0;
}

bool touches_word(std::string_view text, std::size_t begin, std::size_t end) {
  return (begin > 0 &&
          has_class(text, previous_character(text, begin), kIsWord)) ||
      (end < text.size() && has_class(text, end, kIsWord));
}

std::size_t skip_blanks_back(std::string_view text, std::size_t at) {
  while (at > 0 && has_class(text, previous_character(text, at), kIsSpace)) {
    at = previous_character(text, at);
  }
  return at;
}

std::size_t skip_blanks(std::string_view text, std::size_t at) {
  while (at < text.size() && has_class(text, at, kIsSpace)) {
    at += decode_character(text.data() + at).length;
  }
  return at;
}

} // namespace

void AddedTokenFinder::add(std::string_view pattern, const AddedToken& token) {
  std::uint32_t node = 0;
  for (const char c : pattern) {
    const std::uint64_t edge =
        std::uint64_t{node} << 8 | static_cast<unsigned char>(c);
    const auto [found, added] =
        edges_.try_emplace(edge, static_cast<std::uint32_t>(token_at_.size()));
    if (added) {
      token_at_.push_back(nullptr);
    }
    node = found->second;
  }
  token_at_[node] = &token;
  starts_[static_cast<unsigned char>(pattern[0])] = true;
}

AddedTokenFinder::Found AddedTokenFinder::longest_at(
    std::string_view text,
    std::size_t at) const {
  Found best{nullptr, 0};
  std::uint32_t node = 0;
  for (std::size_t i = at; i < text.size(); ++i) {
    const auto edge = edges_.find(
        std::uint64_t{node} << 8 | static_cast<unsigned char>(text[i]));
    if (edge == edges_.end()) {
      break;
    }
    node = edge->second;
    if (token_at_[node] != nullptr) {
      best = {token_at_[node], i + 1 - at};
    }
  }
  return best;
}

std::vector<TextSection> AddedTokenFinder::split(std::string_view text) const {
  std::vector<TextSection> sections;
  std::size_t done = 0; // text before it is in a section
  const auto add_plain = [&](std::size_t end) {
    if (done < end) {
      sections.push_back({text.substr(done, end - done), nullptr});
    }
  };
  for (std::size_t at = 0; at < text.size() && token_at_.size() > 1;) {
    const bool starts = starts_[static_cast<unsigned char>(text[at])];
    const Found found = starts ? longest_at(text, at) : Found{nullptr, 0};
    if (found.token == nullptr) {
      ++at;
      continue;
    }
    std::size_t begin = at;
    std::size_t end = at + found.size;
    at = end;
    const AddedToken& token = *found.token;
    if (token.single_word && touches_word(text, begin, end)) {
      continue;
    }
    if (token.lstrip) {
      begin = std::max(skip_blanks_back(text, begin), done);
    }
    if (token.rstrip) {
      end = skip_blanks(text, end);
    }
    add_plain(begin);
    sections.push_back({{}, &token});
    done = end;
  }
  add_plain(text.size());
  return sections;
}

} // namespace optiq::text
