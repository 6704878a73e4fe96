// A Jinja source, rendered with a small conversation under a small budget.
#include "fuzz/fuzz_support.h"

#include "optiq/artifacts/json.h"
#include "optiq/text/chat_template.h"

namespace optiq::fuzz {
namespace {

using artifacts::Json;

const text::RenderBudget kBudget{
    .steps = 20'000,
    .output_bytes = 1u << 16,
    .depth = 64,
    .wall = std::chrono::milliseconds(500)};

/** A conversation, and the names that the oracle's small templates use. */
Json variables() {
  return Json::parse(R"({
    "n": 7, "neg": -7, "big": 9007199254740993, "x": 2.5, "tiny": 1e-7,
    "yes": true, "no": false, "nil": null, "s": "Hello, World",
    "u": "na\u00efve Stra\u00dfe \u0391\u03a3 \ud83d\ude00x",
    "pad": "  \t two words \n", "lines": "one\ntwo\n\nthree",
    "html": "<b>&\"'</b>", "empty": "", "items": [3, 1, 2],
    "words": ["b", "A", "c", "a"], "nested": [[1, [2, "a'b"]], null, 1.0],
    "none_list": [], "d": {"b": 1, "A": 2, "c": null, "items": "shadowed"},
    "rows": [{"name": "Ann", "age": 30, "tags": ["x"], "boss": true},
             {"name": "Cy", "age": 30, "tags": ["x", "y"]}],
    "messages": [
      {"role": "system", "content": "Be brief."},
      {"role": "user", "content": [{"type": "text", "text": "2 + 2 = ?"}]},
      {"role": "assistant", "content": "<think>\n4\n</think>\n4",
       "tool_calls": [{"type": "function", "id": "a1", "function":
         {"name": "add", "arguments": {"x": 2, "y": 2.5, "z": null}}}]},
      {"role": "tool", "content": "4", "name": "add"},
      {"role": "user", "content": "Danke sch\u00f6n \ud83d\ude00"}],
    "tools": [{"type": "function", "function": {"name": "add",
      "description": "adds", "parameters": {"type": "object",
      "properties": {"x": {"type": "number"}}, "required": ["x"]}}}],
    "add_generation_prompt": true, "bos_token": "<s>", "eos_token": "</s>"})");
}

bool is_utf8(const std::string& text) {
  try {
    static_cast<void>(Json(text).dump());
    return true;
  } catch (const Json::exception&) {
    return false;
  }
}

} // namespace
} // namespace optiq::fuzz

extern "C" int LLVMFuzzerTestOneInput(
    const std::uint8_t* data,
    std::size_t size) {
  using namespace optiq;
  static const artifacts::Json kVariables = fuzz::variables();
  const std::string source(fuzz::as_text(data, size));
  fuzz::accepts([&] {
    const auto parsed = text::ChatTemplate::parse(source, "fuzz.jinja");
    const std::string first = parsed.render(kVariables, fuzz::kBudget);
    fuzz::require(
        first.size() <= fuzz::kBudget.output_bytes,
        "the output is within its budget");
    fuzz::require(
        fuzz::is_utf8(first) || !fuzz::is_utf8(source),
        "a template of UTF-8 renders UTF-8");
    if (source.find("strftime_now") == std::string::npos) {
      fuzz::require(
          parsed.render(kVariables, fuzz::kBudget) == first,
          "a template renders twice the same");
    }
  });
  return 0;
}
