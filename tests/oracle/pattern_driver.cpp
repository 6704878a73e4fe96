// pattern_driver PATTERNS TEXTS RESULTS
// Matches every pattern in every text for patterns.py.
//   PATTERNS, TEXTS: records of u32 size, bytes
//   RESULTS: for every pattern, for every text a record of i32 count, and
//            count times u32 begin, u32 end of a match; count -1: the pattern
//            is refused (no records of matches follow), -2: its run is
// Prints JSON: seconds of CPU time in all, the longest match of one text, and
// the most memory.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <exception>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>

#include "optiq/base/error.h"
#include "optiq/text/pattern_regex.h"

namespace {

using optiq::text::PatternRegex;
using optiq::text::PatternRun;
using optiq::text::TextRange;

std::vector<std::string> read_records(const char* path) {
  std::ifstream in(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  std::vector<std::string> records;
  for (std::size_t at = 0; at < bytes.size();) {
    std::uint32_t size = 0;
    std::memcpy(&size, bytes.data() + at, sizeof(size));
    records.push_back(bytes.substr(at + sizeof(size), size));
    at += sizeof(size) + size;
  }
  return records;
}

void write_i32(std::ofstream& out, std::int64_t value) {
  const auto narrow = static_cast<std::int32_t>(value);
  out.write(reinterpret_cast<const char*>(&narrow), sizeof(narrow));
}

double cpu_seconds() {
  return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

/** Of this program; getrusage would count the one that started it. */
double most_mebibytes() {
  std::ifstream status("/proc/self/status");
  double kibibytes = 0;
  for (std::string word; status >> word;) {
    if (word == "VmHWM:") {
      status >> kibibytes;
    }
  }
  return kibibytes / 1024;
}

/** Reads the pattern and matches it in all the texts. */
void run_pattern(
    const std::string& pattern,
    const std::vector<std::string>& texts,
    std::ofstream& results) {
  std::unique_ptr<PatternRegex> regex;
  try {
    regex = std::make_unique<PatternRegex>(pattern, "pattern");
  } catch (const optiq::Error&) {
    write_i32(results, -1);
    return;
  }
  for (const std::string& text : texts) {
    std::vector<TextRange> matches;
    try {
      PatternRun run(text.size());
      regex->find_all(text, run, matches);
    } catch (const optiq::Error&) {
      write_i32(results, -2);
      continue;
    }
    write_i32(results, static_cast<std::int64_t>(matches.size()));
    for (const TextRange& match : matches) {
      write_i32(results, static_cast<std::int64_t>(match.begin));
      write_i32(results, static_cast<std::int64_t>(match.end));
    }
  }
}

void run(char** argv) {
  const auto patterns = read_records(argv[1]);
  const auto texts = read_records(argv[2]);
  std::ofstream results(argv[3], std::ios::binary);
  double longest = 0;
  std::size_t slowest = 0;
  for (std::size_t i = 0; i < patterns.size(); ++i) {
    const double begin = cpu_seconds();
    run_pattern(patterns[i], texts, results);
    if (cpu_seconds() - begin > longest) {
      longest = cpu_seconds() - begin;
      slowest = i;
    }
  }
  std::printf(
      "{\"seconds\": %f, \"longest\": %f, \"slowest\": %zu, "
      "\"mebibytes\": %f}\n",
      cpu_seconds(),
      longest,
      slowest,
      most_mebibytes());
}

} // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: %s PATTERNS TEXTS RESULTS\n", argv[0]);
    return 2;
  }
  try {
    run(argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
