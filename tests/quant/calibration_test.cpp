#include "optiq/quant/calibration.h"

#include <filesystem>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"
#include "support/tiny_model.h"

#include "optiq/artifacts/json.h"
#include "optiq/quant/calibration_mix_impl.h"

namespace optiq::quant {
namespace {

constexpr std::int32_t kSeparator = 7;

CalibrationEncoder tiny_encoder() {
  return {
      .tokenizer = text::Tokenizer::load(testing::tiny_model_path()),
      .chat_template = text::ChatTemplate::load(testing::tiny_model_path()),
      .separator = kSeparator};
}

std::vector<std::int32_t> encode(const std::string& text) {
  return tiny_encoder().tokenizer->encode(text, false);
}

Calibration load_text(
    const std::string& name,
    const std::string& content,
    CalibrationOptions options = {}) {
  test::ScratchFolder folder;
  test::write_file(folder / name, content);
  options.source = (folder / name).string();
  return load_calibration(options, tiny_encoder());
}

/** What the chunks hold, in the order of the stream: one short chunk. */
std::vector<std::int32_t> only_chunk(const Calibration& calibration) {
  EXPECT_EQ(calibration.chunks.size(), 1u);
  return calibration.chunks.front();
}

TEST(CalibrationMix, HasManyKindsOfSamples) {
  std::map<std::string, int> domains;
  int n = 0;
  std::string_view rest = calibration_mix();
  while (!rest.empty()) {
    const std::size_t end = rest.find('\n');
    ASSERT_NE(end, std::string_view::npos);
    const auto row = artifacts::parse_json(rest.substr(0, end), "mix");
    ++domains[row.at("domain").get<std::string>()];
    EXPECT_NE(row.contains("text"), row.contains("messages"));
    rest.remove_prefix(end + 1);
    ++n;
  }
  EXPECT_GE(n, 48);
  for (const char* domain :
       {"prose",
        "reasoning",
        "code",
        "agent_loop",
        "tool_call",
        "instruction"}) {
    EXPECT_GE(domains[domain], 6) << domain;
  }
}

TEST(CalibrationMix, Fills24ChunksWithoutRepetition) {
  const Calibration mix = load_calibration({}, tiny_encoder());
  EXPECT_EQ(mix.chunks.size(), 24u);
  EXPECT_TRUE(mix.notices.empty());
  EXPECT_EQ(mix.name, "mix");
  std::set<std::vector<std::int32_t>> windows;
  std::size_t n_windows = 0;
  for (const auto& chunk : mix.chunks) {
    EXPECT_EQ(chunk.size(), 512u);
    for (std::size_t i = 0; i + 32 <= chunk.size(); i += 32) {
      const auto begin = chunk.begin() + static_cast<std::ptrdiff_t>(i);
      windows.emplace(begin, begin + 32);
      ++n_windows;
    }
  }
  EXPECT_EQ(windows.size(), n_windows);
}

TEST(CalibrationMix, TheSeedPicksTheChunks) {
  const auto load = [](std::uint64_t seed) {
    return load_calibration({.n_chunks = 6, .seed = seed}, tiny_encoder());
  };
  const Calibration a = load(1);
  EXPECT_EQ(a.chunks, load(1).chunks);
  EXPECT_EQ(a.hash, load(1).hash);
  EXPECT_EQ(a.hash.size(), 64u);
  EXPECT_NE(a.hash, load(2).hash);
  // Fewer chunks are the first of more chunks.
  const Calibration more =
      load_calibration({.n_chunks = 7, .seed = 1}, tiny_encoder());
  EXPECT_TRUE(
      std::equal(a.chunks.begin(), a.chunks.end(), more.chunks.begin()));
}

TEST(LoadCalibration, ReadsEveryKindOfRow) {
  const Calibration found = load_text(
      "rows.jsonl",
      R"({"text": "Once upon"})"
      "\n\n"
      R"({"domain": "d", "messages": [{"role": "user", "content": "Hi"}]})"
      "\r\n"
      R"({"question": "2+2?", "answer": "4", "value": 4})");
  std::vector<std::int32_t> expected = encode("Once upon");
  for (
      const char* text :
      {"<|im_start|>user\nHi<|im_end|>\n",
       "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n"}) {
    expected.push_back(kSeparator);
    const auto ids = encode(text);
    expected.insert(expected.end(), ids.begin(), ids.end());
  }
  EXPECT_EQ(only_chunk(found), expected);
  EXPECT_EQ(found.name, "rows.jsonl");
}

TEST(LoadCalibration, KeepsTheTailOfAShortText) {
  std::string text;
  for (int i = 0; i < 400; ++i) {
    text += "line " + std::to_string(i) + " of the text\n";
  }
  const auto ids = encode(text);
  const Calibration found = load_text("a.txt", text);
  ASSERT_EQ(found.chunks.size(), (ids.size() + 511) / 512);
  EXPECT_EQ(found.chunks.back().size(), ids.size() % 512);
  std::multiset<std::int32_t> all;
  for (const auto& chunk : found.chunks) {
    all.insert(chunk.begin(), chunk.end());
  }
  EXPECT_EQ(all, std::multiset<std::int32_t>(ids.begin(), ids.end()));
  ASSERT_EQ(found.notices.size(), 1u);
  EXPECT_NE(found.notices.front().find("24 were asked for"), std::string::npos);
  // Where full chunks suffice, no short one is taken.
  for (const auto& chunk : load_text("a.txt", text, {.n_chunks = 2}).chunks) {
    EXPECT_EQ(chunk.size(), 512u);
  }
}

TEST(LoadCalibration, WithoutATemplateChatsAreLinesAndItSaysSo) {
  test::ScratchFolder folder;
  test::write_file(
      folder / "a.jsonl",
      R"({"messages": [{"role": "user", "content": "Hi"},)"
      R"({"role": "assistant", "content": "Yes?"}]})");
  CalibrationEncoder encoder = tiny_encoder();
  encoder.chat_template.reset();
  const Calibration found =
      load_calibration({.source = (folder / "a.jsonl").string()}, encoder);
  EXPECT_EQ(only_chunk(found), encode("[user]: Hi\n\n[assistant]: Yes?"));
  EXPECT_EQ(found.notices.size(), 2u);
}

TEST(LoadCalibration, ReadsNoMoreThanItNeeds) {
  std::string rows;
  for (int i = 0; i < 2000; ++i) {
    rows += R"({"text": "one more line of text about nothing"})"
            "\n";
  }
  rows += "not JSON at all\n";
  // 2000 rows are far more than 4 x 512 tokens, and far fewer than 4 x 512
  // x 24.
  EXPECT_EQ(load_text("a.jsonl", rows, {.n_chunks = 1}).chunks.size(), 1u);
  test::expect_error(ErrorKind::Corrupt, {"a.jsonl:2001"}, [&] {
    load_text("a.jsonl", rows);
  });
}

TEST(LoadCalibration, ReadsPlainTextInBlocksAsOneText) {
  std::string text;
  while (text.size() < (200u << 10)) {
    text += "The quick brown fox " + std::to_string(text.size()) + "\n";
  }
  const Calibration found = load_text("a.txt", text, {.n_chunks = 100'000});
  std::multiset<std::int32_t> all;
  for (const auto& chunk : found.chunks) {
    all.insert(chunk.begin(), chunk.end());
  }
  const auto ids = encode(text);
  EXPECT_EQ(all, std::multiset<std::int32_t>(ids.begin(), ids.end()));
}

TEST(LoadCalibration, RefusesFilesThatCannotServe) {
  test::ScratchFolder folder;
  const auto refused =
      [&](const std::filesystem::path& path, ErrorKind kind, const char* part) {
        test::expect_error(kind, {part}, [&] {
          load_calibration({.source = path.string()}, tiny_encoder());
        });
      };
  test::write_file(folder / "empty.txt", "");
  test::write_file(folder / "blank.jsonl", " \n\n");
  refused(folder / "empty.txt", ErrorKind::InvalidInput, "no text");
  refused(folder / "blank.jsonl", ErrorKind::InvalidInput, "no text");
  refused(folder / "absent", ErrorKind::NotFound, "absent");
  refused(folder.path(), ErrorKind::InvalidInput, "not a regular file");
  test::write_file(folder / "huge.txt", "x");
  std::filesystem::resize_file(folder / "huge.txt", kMaxCalibrationBytes);
  refused(folder / "huge.txt", ErrorKind::InvalidInput, "2000000000");
  const std::pair<const char*, const char*> rows[] = {
      {R"({"text": 5})", "\"text\""},
      {R"({"messages": []})", "messages"},
      {R"({"messages": [{"role": "user"}]})", "content"},
      {R"({"messages": [5]})", "not an object"},
      {R"({"question": "a"})", "\"answer\""},
      {R"({"other": 1})", "\"question\""},
      {"[1]", "array"}};
  for (const auto& [row, part] : rows) {
    test::write_file(folder / "bad.jsonl", row);
    refused(folder / "bad.jsonl", ErrorKind::Corrupt, part);
  }
  test::expect_error(ErrorKind::InvalidInput, {"0 chunks"}, [&] {
    load_calibration({.n_chunks = 0}, tiny_encoder());
  });
}

TEST(Calibration, HoldsAQuarterOut) {
  const auto held_out = [](std::size_t n) {
    Calibration calibration;
    calibration.chunks.resize(n);
    std::vector<std::size_t> found;
    for (std::size_t i = 0; i < n; ++i) {
      if (calibration.is_held_out(i)) {
        found.push_back(i);
      }
    }
    return found;
  };
  using Chunks = std::vector<std::size_t>;
  EXPECT_EQ(held_out(1), Chunks{});
  EXPECT_EQ(held_out(2), Chunks{1});
  EXPECT_EQ(held_out(3), Chunks{2});
  EXPECT_EQ(held_out(4), Chunks{3});
  EXPECT_EQ(held_out(9), (Chunks{3, 7}));
}

TEST(Calibration, JoinsTheModelsOwnAndTheMix) {
  const Calibration self{
      .name = "self", .chunks = {{1, 2}, {3}}, .hash = "a", .notices = {"x"}};
  const Calibration mix{
      .name = "mix", .chunks = {{4}}, .hash = "b", .notices = {"y"}};
  const Calibration both = join_calibrations(self, mix);
  EXPECT_EQ(both.name, "both");
  EXPECT_EQ(
      both.chunks, (std::vector<std::vector<std::int32_t>>{{1, 2}, {3}, {4}}));
  EXPECT_EQ(both.notices, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(both.hash.size(), 64u);
  EXPECT_NE(both.hash, join_calibrations(mix, self).hash);
}

} // namespace
} // namespace optiq::quant
