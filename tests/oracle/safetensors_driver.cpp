// Says what OptIQ's safetensors code does, for an oracle to judge.
//   broken FOLDER       writes the handcrafted files of safetensors_cases.h and
//                       prints "<name> <what the reference is known to say>"
//   read FILE...        prints per file "reject <kind>" or "accept <count>"
//                       and then a line "<sha256 of the bytes> <dtype>
//                       <d0,d1,...> <name in hex>" per tensor
//   verdict FILE        prints "reject <kind>" or "accept", and the peak of the
//                       resident memory in bytes
//   copy FROM TO        reads FROM and writes its tensors and metadata to TO
#include <cstdio>
#include <span>
#include <string>
#include <vector>

#include "../io/safetensors_cases.h"
#include "../support/scratch_folder.h"

#include "optiq/base/error.h"
#include "optiq/base/hash.h"
#include "optiq/base/system.h"
#include "optiq/io/safetensors.h"
#include "optiq/io/safetensors_impl.h"

namespace {

namespace io = optiq::io;
namespace test = optiq::test;

void write_cases(const std::filesystem::path& folder) {
  const auto write = [&](const auto& file, const char* verdict) {
    test::write_file(folder / file.name, file.bytes);
    std::printf("%s %s\n", file.name.c_str(), verdict);
  };
  for (const auto& files : {test::broken_frames(), test::broken_tensors()}) {
    for (const test::BrokenFile& file : files) {
      const bool is_stricter = file.reference == test::Reference::Accepts;
      write(file, is_stricter ? "we-are-stricter" : "rejects");
    }
  }
  for (const test::UnreadableFile& file : test::unreadable_files()) {
    write(file, "we-are-stricter");
  }
  for (const test::OddFile& file : test::odd_files()) {
    write(file, "accepts");
  }
}

std::string hex(const std::string& text) {
  std::string digits;
  for (const unsigned char byte : text) {
    digits += fmt::format("{:02x}", byte);
  }
  return "x" + digits; // never empty
}

void print_tensors(const std::filesystem::path& path) {
  try {
    const auto file = io::SafetensorsFile::open(path);
    std::string lines = fmt::format("accept {}\n", file.tensors().size());
    for (const io::TensorInfo& tensor : file.tensors()) {
      const io::mx::array array = file.load(tensor);
      std::string shape = "s";
      for (const auto dim : tensor.shape) {
        shape += fmt::format(",{}", dim);
      }
      const auto digest = optiq::Sha256()
                              .update(std::as_bytes(std::span(
                                  array.data<char>(), array.nbytes())))
                              .hex_digest();
      lines += fmt::format(
          "{} {} {} {}\n",
          digest,
          io::dtype_name(tensor.dtype),
          shape,
          hex(tensor.name));
    }
    fmt::print("{}", lines);
  } catch (const optiq::Error& error) {
    std::printf("reject %s\n", optiq::name_of(error.kind()));
  }
}

void print_verdict(const std::filesystem::path& path) {
  std::string verdict = "accept";
  try {
    const auto file = io::SafetensorsFile::open(path);
    for (const io::TensorInfo& tensor : file.tensors()) {
      file.load(tensor);
    }
  } catch (const optiq::Error& error) {
    verdict = fmt::format("reject {}", optiq::name_of(error.kind()));
  }
  fmt::print("{} {}\n", verdict, optiq::peak_rss_bytes());
}

void copy(const std::filesystem::path& from, const std::filesystem::path& to) {
  const auto file = io::SafetensorsFile::open(from);
  std::vector<io::TensorToWrite> tensors;
  for (const io::TensorInfo& tensor : file.tensors()) {
    tensors.push_back(
        {tensor.name, tensor.dtype, tensor.shape, [&file, &tensor] {
           return file.load(tensor);
         }});
  }
  io::write_safetensors(to, tensors, file.metadata());
}

} // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() == 2 && words[0] == "broken") {
    write_cases(words[1]);
  } else if (words.size() >= 2 && words[0] == "read") {
    for (std::size_t i = 1; i < words.size(); ++i) {
      print_tensors(words[i]);
    }
  } else if (words.size() == 2 && words[0] == "verdict") {
    print_verdict(words[1]);
  } else if (words.size() == 3 && words[0] == "copy") {
    copy(words[1], words[2]);
  } else {
    return 2;
  }
  return 0;
}
