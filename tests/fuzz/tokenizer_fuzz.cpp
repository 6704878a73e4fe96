// "<tokenizer.json>\0<text>": loads the tokenizer, then encodes and decodes the
// text.
#include "fuzz/fuzz_support.h"

#include "optiq/text/tokenizer.h"

namespace optiq::fuzz {
namespace {

constexpr std::string_view kText =
    "Hello  wORLD's 12345\r\n\t caf\u00e9 \u4f60\u597d <|im_start|>\U0001f600 "
    "ab\xff";

void check_text(
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

} // namespace
} // namespace optiq::fuzz

extern "C" std::size_t LLVMFuzzerCustomMutator(
    std::uint8_t* data,
    std::size_t size,
    std::size_t max_size,
    unsigned seed) {
  return optiq::fuzz::mutate_json(data, size, max_size, seed);
}

extern "C" int LLVMFuzzerTestOneInput(
    const std::uint8_t* data,
    std::size_t size) {
  using namespace optiq;
  const auto [json, text] = fuzz::split_at_zero(fuzz::as_text(data, size));
  const std::string_view document = json;
  std::shared_ptr<const text::Tokenizer> tokenizer;
  if (!fuzz::accepts([&] {
        tokenizer = text::Tokenizer::parse(document, "tokenizer.json");
      })) {
    return 0;
  }
  for (const std::string_view sample : {fuzz::kText, text}) {
    fuzz::accepts([&] { fuzz::check_text(tokenizer, sample); });
  }
  return 0;
}
