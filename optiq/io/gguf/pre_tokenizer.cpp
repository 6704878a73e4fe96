// Names of tokenizer.ggml.pre, as llama.cpp's converter gives them by the hash
// of what a tokenizer makes of a test text. The rule of a name is the one of
// the published tokenizer.json files, which docs/tokenizers.md compares.
#include <initializer_list>
#include <vector>

#include "optiq/io/gguf/pre_tokenizer_impl.h"
#include "optiq/io/gguf/vocabulary_impl.h"

namespace optiq::io {
namespace {

using artifacts::Json;

constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| )"
    R"(?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s)"
    R"(\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen35 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N})"
    R"(| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kO200k =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{)"
    R"(Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\)"
    R"(p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'v)"
    R"(e|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+)"
    R"((?!\S)|\s+)";
constexpr const char* kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{)"
    R"(Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{L)"
    R"(l}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|)"
    R"(\s+(?!\S)|\s+)";
constexpr const char* kKimi =
    R"([\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{)"
    R"(Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|)"
    R"('ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Ha)"
    R"(n}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'l)"
    R"(l|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\)"
    R"(s+)";
constexpr const char* kDeepSeekLetters =
    R"(\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-)"
    R"(ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1F7Dᾀ-ᾴᾶ-ᾼ\u1FBEῂ-ῄῆ-ῌῐ-\u1F)"
    R"(D3ῖ-\u1FDBῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212A-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮ)"
    R"(ⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+)";
constexpr const char* kDeepSeekV3 =
    R"([!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\)"
    R"(p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s)"
    R"(+)";
constexpr const char* kBloom = R"( ?[^(\s|[.,!?…。，、।۔،])]+)";
constexpr const char* kSeed =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[)"
    R"(^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kBailing =
    R"('(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L})"
    R"(+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";

/** One step of a pre-tokenizer. */
struct Step {
  enum class Kind { Split, Digits, DigitRuns, Punctuation, Words } kind;
  const char* pattern = ""; // of Split
};

constexpr Step split(const char* pattern) {
  return {Step::Kind::Split, pattern};
}
constexpr Step kDigits{Step::Kind::Digits}; // one by one
constexpr Step kWords{Step::Kind::Words}; // GPT-2's, in ByteLevel

using Steps = std::vector<Step>;

// What llama.cpp does where it knows no better: each cuts what those before it
// left.
const Steps kDefault{
    split(R"([\p{P}\$\+<=>\^~\|]+)"),
    split(
        R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))"),
    split(R"(\p{N}+)"),
    split("[0-9][0-9][0-9]")};
const Steps kFalcon{
    {Step::Kind::Punctuation},
    kWords,
    {Step::Kind::DigitRuns},
    split("[0-9][0-9][0-9]")};
const Steps kDeepSeekLlm{
    split(R"([\r\n])"),
    split(kDeepSeekLetters),
    split(R"(\s?[!-/:-~！-／：-～‘-‟　-。]+)"),
    split(R"(\s+$)"),
    split("[一-龥ࠀ-一가-퟿]+"),
    kDigits};
const Steps kDeepSeekCoder{
    split(R"([\r\n])"),
    split(R"(\s?\p{L}+)"),
    split(R"(\s?\p{P}+)"),
    split("[一-龥ࠀ-一가-퟿]+"),
    kDigits};
const Steps kDeepSeek3{
    split(R"(\p{N}{1,3})"),
    split("[一-龥぀-ゟ゠-ヿ]+"),
    split(kDeepSeekV3)};
const Steps kSuperBpe{split(R"(\p{N}+)"), split(R"((?=(\d{3})+(?!\d)))")};
const Steps kChameleon{
    split("<sentinel:[0-9]+>"),
    split("(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z"),
    split(R"([\t\n]|    |  )"),
    split(R"(\p{N})"),
    split(R"([\p{P}!-/:-@\[-`{-~])"),
    kWords};

struct Row {
  std::vector<const char*> names;
  Steps steps;
  bool ignore_merges = false;
  bool nfc = false;
  bool add_bos = false;
};

const std::vector<Row>& rows() {
  static const std::vector<Row> kRows{
      {{"default"}, kDefault},
      {{"gpt-2", "phi-2", "mpt", "jais"}, {kWords}},
      {{"olmo"}, {kWords}, false, true},
      {{"starcoder", "smollm", "refact", "codeshell", "exaone", "minerva-7b"},
       {kDigits, kWords}},
      {{"command-r"}, {kDigits, kWords}, false, true},
      {{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral"},
       {split(kLlama3)},
       true,
       false,
       true},
      {{"glm4", "chatglm-bpe", "dbrx", "smaug-bpe"}, {split(kLlama3)}},
      {{"qwen2", "deepseek-r1-qwen", "stablelm2"},
       {split(kQwen2)},
       false,
       true},
      {{"qwen35"}, {split(kQwen35)}, false, true},
      {{"tekken"}, {split(kTekken)}, true, false, true},
      {{"gpt-4o", "llama4"}, {split(kO200k)}, true},
      {{"deepseek-llm"}, kDeepSeekLlm},
      {{"deepseek-coder"}, kDeepSeekCoder},
      {{"deepseek-v3"}, kDeepSeek3},
      {{"falcon"}, kFalcon},
      {{"bloom", "poro-chat", "gpt3-finnish"}, {split(kBloom)}},
      {{"viking"}, {split(kBloom), split(R"(\p{N})")}},
      {{"kimi-k2"}, {split(kKimi)}},
      {{"seed-coder"}, {split(kSeed)}},
      {{"bailingmoe"}, {split(kBailing)}},
      {{"superbpe"}, kSuperBpe},
      {{"chameleon"}, kChameleon, false, false, true},
  };
  return kRows;
}

const Row& find_row(const GgufFile& file) {
  // Files older than the key have the rule that llama.cpp calls "default".
  const std::string name =
      file.text(kTokenizerPrefix + "pre").value_or("default");
  std::string known;
  for (const Row& row : rows()) {
    for (const char* candidate : row.names) {
      if (name == candidate) {
        return row;
      }
      known += fmt::format("{}{}", known.empty() ? "" : ", ", candidate);
    }
  }
  reject_key(
      ErrorKind::Unsupported,
      file,
      "pre",
      "found '{}', expected one of: {}. Use the Hugging Face directory of "
      "this model instead",
      name,
      known);
}

Json step_json(const Step& step) {
  switch (step.kind) {
    case Step::Kind::Split:
      return {
          {"type", "Split"},
          {"pattern", {{"Regex", step.pattern}}},
          {"behavior", "Isolated"},
          {"invert", false}};
    case Step::Kind::Digits:
    case Step::Kind::DigitRuns:
      return {
          {"type", "Digits"},
          {"individual_digits", step.kind == Step::Kind::Digits}};
    case Step::Kind::Punctuation:
      return {{"type", "Punctuation"}, {"behavior", "Contiguous"}};
    case Step::Kind::Words:
      return byte_level_json(true);
  }
  return nullptr;
}

} // namespace

Json byte_level_json(bool use_regex) {
  return {
      {"type", "ByteLevel"},
      {"add_prefix_space", false},
      {"trim_offsets", true},
      {"use_regex", use_regex}};
}

GgufPreTokenizer read_pre_tokenizer(const GgufFile& file) {
  const Row& row = find_row(file);
  Json steps = Json::array();
  bool spells_bytes = false;
  for (const Step& step : row.steps) {
    steps.push_back(step_json(step));
    spells_bytes = spells_bytes || step.kind == Step::Kind::Words;
  }
  if (!spells_bytes) {
    steps.push_back(byte_level_json(false));
  }
  return {
      .normalizer = row.nfc ? Json{{"type", "NFC"}} : Json(nullptr),
      .pre_tokenizer = {{"type", "Sequence"}, {"pretokenizers", steps}},
      .ignore_merges = row.ignore_merges,
      .add_bos = row.add_bos};
}

} // namespace optiq::io
