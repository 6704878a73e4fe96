// A tokenizer.model: loads it, then encodes and decodes a text, and its own
// bytes as one.
#include "fuzz/tokenizer_checks.h"

extern "C" int LLVMFuzzerTestOneInput(
    const std::uint8_t* data,
    std::size_t size) {
  using namespace optiq;
  const std::string_view bytes = fuzz::as_text(data, size);
  std::shared_ptr<const text::Tokenizer> tokenizer;
  if (!fuzz::accepts([&] {
        tokenizer = text::Tokenizer::parse_sentencepiece(
            bytes,
            R"({"add_bos_token":true,"legacy":true,"bos_token":"<s>"})",
            "folder");
      })) {
    return 0;
  }
  for (const std::string_view sample : {fuzz::kSampleText, bytes}) {
    fuzz::accepts([&] { fuzz::check_text(tokenizer, sample); });
  }
  return 0;
}
