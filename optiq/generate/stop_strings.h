#pragma once

#include <memory>
#include <string>
#include <vector>

#include "optiq/text/tokenizer.h"

namespace optiq::generate {

/** Watches the text of an answer, special tokens included, for strings that end
 * it. */
class StopStrings {
 public:
  StopStrings(
      std::shared_ptr<const text::Tokenizer> tokenizer,
      std::vector<std::string> strings);
  /** Whether the text has one of the strings, now that this token is in it. */
  bool push(std::int32_t token);

 private:
  std::vector<std::string> strings_;
  std::size_t longest_ = 0;
  text::StreamingDetokenizer detokenizer_;
  std::string tail_; // of the text: what a string may have begun with
};

} // namespace optiq::generate
