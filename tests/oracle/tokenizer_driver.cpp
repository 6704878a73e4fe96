// tokenizer_driver TOKENIZER TEXTS RESULTS
// Encodes and decodes every record of TEXTS for tokenizer_parity.py.
//   TOKENIZER: a tokenizer.json, or a directory with one or a tokenizer.model
//   TEXTS:   records of u32 size, bytes
//   RESULTS: records of u32 count, i32 ids[count], u32 size, decoded bytes
// Ids are with special tokens, decoding keeps them. Prints JSON: seconds of CPU
// time spent encoding and how often the streamed text differed from the decoded
// one.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "optiq/text/tokenizer.h"

namespace {

using optiq::text::StreamingDetokenizer;
using optiq::text::Tokenizer;

std::string read_file(const char* path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_u32(std::ofstream& out, std::size_t value) {
  const auto narrow = static_cast<std::uint32_t>(value);
  out.write(reinterpret_cast<const char*>(&narrow), sizeof(narrow));
}

std::string stream_text(
    const std::shared_ptr<const Tokenizer>& tokenizer,
    const std::vector<std::int32_t>& ids) {
  StreamingDetokenizer detokenizer(tokenizer, false);
  std::string text;
  for (const std::int32_t id : ids) {
    text += detokenizer.push(id);
  }
  return text + detokenizer.finish();
}

void run(char** argv) {
  const auto tokenizer = std::filesystem::is_directory(argv[1])
      ? Tokenizer::load(argv[1])
      : Tokenizer::parse(read_file(argv[1]), argv[1]);
  const std::string texts = read_file(argv[2]);
  std::ofstream results(argv[3], std::ios::binary);
  std::clock_t encoding = 0; // CPU time: others disturb the clock on the wall
  int streams_that_differ = 0;
  for (std::size_t at = 0; at < texts.size();) {
    std::uint32_t size = 0;
    std::memcpy(&size, texts.data() + at, sizeof(size));
    const auto text = std::string_view(texts).substr(at + sizeof(size), size);
    at += sizeof(size) + size;
    const std::clock_t begin = std::clock();
    const auto ids = tokenizer->encode(text, true);
    encoding += std::clock() - begin;
    const std::string decoded = tokenizer->decode(ids, false);
    streams_that_differ += stream_text(tokenizer, ids) == decoded ? 0 : 1;
    write_u32(results, ids.size());
    results.write(
        reinterpret_cast<const char*>(ids.data()),
        static_cast<std::streamsize>(ids.size() * sizeof(ids[0])));
    write_u32(results, decoded.size());
    results << decoded;
  }
  std::printf(
      "{\"encode_seconds\": %f, \"streams_that_differ\": %d}\n",
      static_cast<double>(encoding) / CLOCKS_PER_SEC,
      streams_that_differ);
}

} // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: %s TOKENIZER TEXTS RESULTS\n", argv[0]);
    return 2;
  }
  try {
    run(argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
