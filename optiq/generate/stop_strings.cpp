#include "optiq/generate/stop_strings.h"

#include <algorithm>
#include <utility>

namespace optiq::generate {

StopStrings::StopStrings(
    std::shared_ptr<const text::Tokenizer> tokenizer,
    std::vector<std::string> strings)
    : strings_(std::move(strings)), detokenizer_(std::move(tokenizer), false) {
  for (const std::string& string : strings_) {
    longest_ = std::max(longest_, string.size());
  }
}

bool StopStrings::push(std::int32_t token) {
  tail_ += detokenizer_.push(token);
  const bool found = std::any_of(
      strings_.begin(), strings_.end(), [&](const std::string& string) {
        return tail_.find(string) != std::string::npos;
      });
  if (tail_.size() > longest_) {
    tail_.erase(0, tail_.size() - longest_);
  }
  return found;
}

} // namespace optiq::generate
