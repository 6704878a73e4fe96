// The input is a list of changes to a small model: values and tensors of other
// types, sizes and names. The GGUF file that they make is opened as a model
// directory in both forms, and all of it is read.
#include <fuzzer/FuzzedDataProvider.h>

#include "fuzz/fuzz_support.h"
#include "io/gguf/small_model.h"

#include "optiq/generate/defaults.h"
#include "optiq/io/gguf/file.h"
#include "optiq/io/model_directory.h"

namespace optiq::fuzz {
namespace {

using test::SmallModel;

constexpr std::size_t kMaxElements = 1u << 12; // of a tensor
constexpr std::uint32_t kTensorTypes[] =
    {0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 30, 10, 4, 999};
constexpr const char* kTensorNames[] = {
    "token_embd.weight",
    "output.weight",
    "output_norm.weight",
    "rope_freqs.weight",
    "blk.0.attn_q.weight",
    "blk.0.attn_k.weight",
    "blk.0.ffn_gate.weight",
    "blk.0.attn_q_norm.weight",
    "blk.1.attn_q.weight",
    "blk.00.attn_q.weight",
    "blk.0.post_ffw_norm.weight"};
constexpr const char* kKeys[] = {
    "general.alignment",
    "general.architecture",
    "split.count",
    "tokenizer.chat_template",
    "tokenizer.chat_template.tools",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.add_space_prefix",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.model",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.unknown_token_id"};
constexpr const char* kArchitectureKeys[] = {
    ".attention.head_count",
    ".attention.head_count_kv",
    ".attention.key_length",
    ".attention.layer_norm_rms_epsilon",
    ".attention.sliding_window",
    ".attention.sliding_window_pattern",
    ".attention.value_length",
    ".block_count",
    ".context_length",
    ".embedding_length",
    ".feed_forward_length",
    ".final_logit_softcapping",
    ".rope.dimension_count",
    ".rope.freq_base",
    ".rope.freq_base_swa",
    ".rope.scaling.factor",
    ".rope.scaling.type"};
constexpr const char* kTexts[] = {
    "llama",
    "gpt2",
    "qwen2",
    "llama-bpe",
    "smollm",
    "gemma3",
    "linear",
    "none",
    "",
    "{{ messages[0].content }}"};
constexpr const char* kPieces[] = {
    "a",      "b",      "ab",       "\u2581", "<0x41>", "<0xFF>", "",
    "<end>",  "\u0120", "\u0120ab", "a b",    "\xff",   "<unk>",  "\u2581a",
    "\u4f60", "abab",   "<0x0A>",   "\u010a", "aa",     "ba"};

template <typename T, std::size_t N>
T pick(FuzzedDataProvider& input, const T (&choices)[N]) {
  return choices[input.ConsumeIntegralInRange<std::size_t>(0, N - 1)];
}

std::string take_text(FuzzedDataProvider& input) {
  return input.ConsumeBool() ? std::string(pick(input, kTexts))
                             : input.ConsumeRandomLengthString(24);
}

std::string take_piece(FuzzedDataProvider& input) {
  return input.ConsumeIntegralInRange(0, 3) > 0
      ? std::string(pick(input, kPieces))
      : input.ConsumeRandomLengthString(12);
}

std::uint64_t take_number(FuzzedDataProvider& input) {
  return input.ConsumeBool()
      ? input.ConsumeIntegralInRange<std::uint64_t>(0, 64)
      : input.ConsumeIntegral<std::uint64_t>();
}

/** A payload of a value type, arrays included. */
std::string take_payload(FuzzedDataProvider& input, std::uint32_t type) {
  constexpr int kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  if (type == 8) {
    return test::gguf_string(take_text(input));
  }
  if (type == 9) {
    const auto item = input.ConsumeIntegralInRange<std::uint32_t>(0, 8);
    const auto count = input.ConsumeIntegralInRange<std::uint64_t>(0, 8);
    std::string items;
    for (std::uint64_t i = 0; i < count; ++i) {
      items += take_payload(input, item);
    }
    return test::u32(item) + test::u64(count) + items;
  }
  if (type == 6) {
    return test::raw(input.ConsumeFloatingPointInRange(-1e6f, 1e6f));
  }
  return test::u64(
             type == 7 ? input.ConsumeIntegralInRange(0, 1)
                       : take_number(input))
      .substr(0, kBytes[type]);
}

void set_number(
    FuzzedDataProvider& input,
    const std::string& key,
    SmallModel& model) {
  const auto type = input.ConsumeIntegralInRange<std::uint32_t>(0, 12);
  model.set(key, test::gguf_value(key, type, take_payload(input, type)));
}

/** A vocabulary of few tokens, with scores and merges among them. */
void set_vocabulary(FuzzedDataProvider& input, SmallModel& model) {
  const std::string t = "tokenizer.ggml.";
  const auto n = input.ConsumeIntegralInRange<std::size_t>(1, 24);
  std::vector<std::string> tokens;
  std::string types;
  std::string scores;
  for (std::size_t i = 0; i < n; ++i) {
    tokens.push_back(take_piece(input));
    types += test::u32(input.ConsumeIntegralInRange<std::uint32_t>(1, 6));
    scores +=
        test::raw(static_cast<float>(input.ConsumeIntegral<std::int8_t>()));
  }
  std::vector<std::string> merges;
  for (auto m = input.ConsumeIntegralInRange(0, 12); m > 0; --m) {
    const auto left = input.ConsumeIntegralInRange<std::size_t>(0, n - 1);
    const auto right = input.ConsumeIntegralInRange<std::size_t>(0, n - 1);
    merges.push_back(tokens[left] + " " + tokens[right]);
  }
  model.set_text(t + "model", input.ConsumeBool() ? "llama" : "gpt2");
  model.set(t + "tokens", test::gguf_texts(t + "tokens", tokens));
  model.set(t + "token_type", test::gguf_array(t + "token_type", 5, n, types));
  model.set(t + "scores", test::gguf_array(t + "scores", 6, n, scores));
  model.set(t + "merges", test::gguf_texts(t + "merges", merges));
}

void change_tensor(FuzzedDataProvider& input, SmallModel& model) {
  const std::string name = pick(input, kTensorNames);
  if (input.ConsumeIntegralInRange(0, 3) == 0) {
    model.tensors.erase(name);
    return;
  }
  SmallModel::Tensor tensor;
  std::size_t elements = 1;
  for (auto n = input.ConsumeIntegralInRange(1, 3); n > 0; --n) {
    constexpr std::uint64_t kAxes[] = {1, 2, 4, 8, 16, 31, 32, 64, 256, 512};
    const std::uint64_t axis = pick(input, kAxes);
    tensor.axes.push_back(elements * axis <= kMaxElements ? axis : 1);
    elements *= tensor.axes.back();
  }
  tensor.type = pick(input, kTensorTypes);
  const auto n_bytes = test::gguf_bytes(tensor.type, elements);
  // The first bytes from the input, the rest again and again the same.
  tensor.bytes = input.ConsumeRandomLengthString(64) + "x";
  while (tensor.bytes.size() < n_bytes) {
    tensor.bytes += tensor.bytes.substr(0, n_bytes - tensor.bytes.size());
  }
  tensor.bytes.resize(n_bytes);
  model.tensors[name] = tensor;
}

SmallModel take_model(FuzzedDataProvider& input) {
  constexpr const char* kArchitectures[] = {"llama", "qwen3", "gemma3"};
  const std::string name = pick(input, kArchitectures);
  SmallModel model = name == "gemma3" ? test::gemma() : test::llama(name);
  for (auto n = input.ConsumeIntegralInRange(0, 8); n > 0; --n) {
    switch (input.ConsumeIntegralInRange(0, 5)) {
      case 0:
        set_number(input, name + pick(input, kArchitectureKeys), model);
        break;
      case 1:
        set_number(input, pick(input, kKeys), model);
        break;
      case 2:
        model.values.erase(
            input.ConsumeBool() ? name + pick(input, kArchitectureKeys)
                                : pick(input, kKeys));
        break;
      case 3:
        set_vocabulary(input, model);
        break;
      default:
        change_tensor(input, model);
    }
  }
  return model;
}

void check_tensors(const io::ModelDirectory& directory) {
  std::uint64_t bytes = 0;
  for (const io::TensorInfo& info : directory.tensors()) {
    require(directory.has(info.name), "a listed tensor is there");
    bytes += info.nbytes;
    accepts([&] {
      const io::mx::array loaded = directory.load(info.name);
      require(
          loaded.shape() == info.shape && loaded.dtype() == info.dtype,
          "a tensor loads with its shape and dtype");
      directory.drop(info.name);
    });
  }
  require(
      bytes <= directory.file_bytes(), "tensors take no more than the file");
}

void check_tokenizer(const io::ModelDirectory& directory) {
  const auto tokenizer = generate::load_tokenizer(directory);
  generate::stop_ids(directory, *tokenizer);
  for (const char* text : {"ab abab\n a", "\u4f60A\xff  <end>b"}) {
    accepts([&] {
      const auto ids = tokenizer->encode(text, true);
      for (const std::int32_t id : ids) {
        require(
            id >= 0 && id < tokenizer->vocab_size(),
            "ids are of the vocabulary");
      }
      tokenizer->decode(ids, false);
    });
  }
}

} // namespace
} // namespace optiq::fuzz

extern "C" int LLVMFuzzerTestOneInput(
    const std::uint8_t* data,
    std::size_t size) {
  using namespace optiq;
  FuzzedDataProvider input(data, size);
  const auto path = fuzz::scratch() / "model.gguf";
  test::write_file(path, fuzz::take_model(input).bytes());
  for (const auto form :
       {io::QuantizedForm::Affine, io::QuantizedForm::Values}) {
    fuzz::accepts([&] {
      const auto directory = io::ModelDirectory::open(path, form);
      fuzz::check_tensors(directory);
      fuzz::accepts([&] { fuzz::check_tokenizer(directory); });
      fuzz::accepts([&] { generate::load_chat_template(directory); });
    });
  }
  return 0;
}
