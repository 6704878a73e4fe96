// "<tokenizer.json>\0<text>": loads the tokenizer, then encodes and decodes the
// text.
#include "fuzz/tokenizer_checks.h"

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
  for (const std::string_view sample : {fuzz::kSampleText, text}) {
    fuzz::accepts([&] { fuzz::check_text(tokenizer, sample); });
  }
  return 0;
}
