#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "fuzz/fuzz_support.h"

#include "optiq/text/tokenizer.h"

namespace optiq::fuzz {

inline constexpr std::string_view kSampleText =
    "Hello  wORLD's 12345\r\n\t caf\u00e9 \u4f60\u597d <|im_start|>\U0001f600 "
    "ab\xff";

/** What holds of every tokenizer and text. */
inline void check_text(
    const std::shared_ptr<const text::Tokenizer>& tokenizer,
    std::string_view text) {
  for (const bool with_special : {false, true}) {
    const auto ids = tokenizer->encode(text, with_special);
    text::StreamingDetokenizer stream(tokenizer, with_special);
    std::string streamed;
    for (const std::int32_t id : ids) {
      require(
          id >= 0 && id < tokenizer->vocab_size(), "ids are of the vocabulary");
      streamed += stream.push(id);
      tokenizer->token_bytes(id);
    }
    streamed += stream.finish();
    require(
        streamed == tokenizer->decode(ids, with_special),
        "streamed text is decoded text");
  }
}

} // namespace optiq::fuzz
