// Says what OptIQ's GGUF code does, for an oracle to judge.
//   broken FOLDER     writes the handcrafted files of gguf/cases.h and prints
//                     "<name> <what PyPI's gguf is known to say>"
//   read FILE...      prints per file "reject <kind> <peak RSS bytes>" or
//                     "accept <tensors> <peak RSS bytes>" (each in a process of
//                     its own, so that the memory is that of one file)
//   values FILE OUT   writes each tensor's float32 values to OUT/<index>.f32
//                     and, of a type in affine groups, scale * code + bias to
//                     OUT/<index>.affine; prints "<name>" per tensor
//   tokenizer FILE OUT writes tokenizer.json (or .model) and
//   tokenizer_config.json model FILE OUT    writes FILE as a model directory
//   shows it, to convert:
//                     OUT/config.json, OUT/tokenizer.json and the like,
//                     OUT/model.safetensors
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include "../io/gguf/cases.h"
#include "../support/scratch_folder.h"

#include "optiq/artifacts/json.h"
#include "optiq/base/error.h"
#include "optiq/base/system.h"
#include "optiq/io/array.h"
#include "optiq/io/gguf/dequantize.h"
#include "optiq/io/gguf/sentencepiece.h"
#include "optiq/io/gguf/tokenizer.h"
#include "optiq/io/model_directory.h"
#include "optiq/io/safetensors.h"

namespace {

namespace fs = std::filesystem;
namespace io = optiq::io;
namespace test = optiq::test;

void write_cases(const fs::path& folder) {
  for (const test::BrokenGguf& file : test::broken_gguf_files()) {
    test::write_file(folder / file.name, file.bytes);
    std::printf(
        "%s %s\n",
        file.name.c_str(),
        file.reference_accepts ? "we-are-stricter" : "rejects");
  }
}

void print_verdict(const fs::path& path) {
  std::string verdict;
  try {
    verdict =
        fmt::format("accept {}", io::GgufFile::open(path).tensors().size());
  } catch (const optiq::Error& error) {
    verdict = fmt::format("reject {}", optiq::name_of(error.kind()));
  }
  std::printf(
      "%s %llu\n",
      verdict.c_str(),
      static_cast<unsigned long long>(optiq::peak_rss_bytes()));
  std::fflush(stdout);
}

int read_all(const std::vector<std::string>& words) {
  for (std::size_t i = 1; i < words.size(); ++i) {
    const pid_t child = fork();
    if (child == 0) {
      print_verdict(words[i]);
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
      std::printf("crash %d 0\n", WTERMSIG(status));
    }
    std::fflush(stdout);
  }
  return 0;
}

std::string bytes_of(std::span<const float> values) {
  return {
      reinterpret_cast<const char*>(values.data()),
      values.size() * sizeof(float)};
}

float param(const io::mx::array& params, std::size_t i) {
  return params.dtype() == io::mx::float32
      ? params.data<float>()[i]
      : static_cast<float>(params.data<io::mx::float16_t>()[i]);
}

/** scale * code + bias, decoded bit by bit from the format's definition. */
std::vector<float> affine_values(const io::AffineParts& parts, int bits) {
  const std::size_t n = parts.scales.size() * io::kGgufGroup;
  const auto* words = parts.weight.data<std::uint32_t>();
  std::vector<float> values(n);
  for (std::size_t i = 0; i < n; ++i) {
    int code = 0;
    for (int b = 0; b < bits; ++b) {
      const std::size_t at = i * bits + b;
      code |= static_cast<int>(words[at / 32] >> at % 32 & 1) << b;
    }
    const std::size_t group = i / io::kGgufGroup;
    // Exact in double: 24 bits times 8 bits plus 24 bits of near exponent.
    values[i] = static_cast<float>(
        static_cast<double>(param(parts.scales, group)) * code +
        param(parts.biases, group));
  }
  return values;
}

void write_values(const fs::path& path, const fs::path& out) {
  const auto file = io::GgufFile::open(path);
  int index = 0;
  for (const io::GgufTensor& tensor : file.tensors()) {
    const std::string stem = (out / std::to_string(index++)).string();
    test::write_file(
        stem + ".f32", bytes_of(io::floats(io::dequantize(file, tensor))));
    if (const auto form = io::affine_form(tensor.type)) {
      test::write_file(
          stem + ".affine",
          bytes_of(affine_values(io::split_affine(file, tensor), form->bits)));
    }
    std::printf("%s\n", tensor.name.c_str());
  }
}

void write_tokenizer(const fs::path& path, const fs::path& out) {
  const auto file = io::GgufFile::open(path);
  optiq::artifacts::Json config = io::gguf_tokenizer_config(file);
  if (io::has_sentencepiece_model(file)) {
    test::write_file(
        out / "tokenizer.model", io::gguf_sentencepiece_model(file));
    config.update(io::gguf_sentencepiece_config(file));
  } else {
    test::write_file(out / "tokenizer.json", io::gguf_tokenizer_json(file));
  }
  test::write_file(
      out / "tokenizer_config.json", optiq::artifacts::dump_json(config, 2));
}

void write_model(const fs::path& path, const fs::path& out) {
  const auto model = io::ModelDirectory::open(path, io::QuantizedForm::Values);
  std::vector<io::TensorToWrite> tensors;
  for (const io::TensorInfo& info : model.tensors()) {
    tensors.push_back({info.name, info.dtype, info.shape, [&model, &info] {
                         return model.load(info.name);
                       }});
  }
  io::write_safetensors(out / "model.safetensors", tensors, {});
  test::write_file(
      out / "config.json", optiq::artifacts::dump_json(model.config(), 2));
  model.copy_side_files(out);
}

} // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  try {
    if (words.size() == 2 && words[0] == "broken") {
      write_cases(words[1]);
    } else if (words.size() >= 2 && words[0] == "read") {
      return read_all(words);
    } else if (words.size() == 3 && words[0] == "values") {
      write_values(words[1], words[2]);
    } else if (words.size() == 3 && words[0] == "tokenizer") {
      write_tokenizer(words[1], words[2]);
    } else if (words.size() == 3 && words[0] == "model") {
      write_model(words[1], words[2]);
    } else {
      return 2;
    }
  } catch (const optiq::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
