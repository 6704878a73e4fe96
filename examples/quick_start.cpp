#include <cstdio>

#include <optiq/optiq.h>

int main() try {
  const auto model = optiq::load_model("models/tiny-qwen3.5");
  const auto answer = optiq::generate_text(
      model,
      "Ben has 12 pens. Ben buys 30 more pens. How many pens does Ben have?",
      {.sampler = {{.temperature = 0.f}}});
  std::printf("%s\n", answer.text.c_str());
  const auto scores = optiq::measure_perplexity(
      model, "models/tiny-qwen3.5/eval_arithmetic.jsonl", {.limit = 16});
  std::printf("perplexity %.3f\n", scores.ppl);
} catch (const optiq::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
