#include <cstdlib>
#include <fstream>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"
#include "support/tiny_model.h"

#include "optiq/eval/perplexity.h"
#include "optiq/generate/defaults.h"
#include "optiq/generate/generation_config.h"
#include "optiq/optiq.h"

namespace optiq {
namespace {

namespace fs = std::filesystem;

constexpr const char* kQuestion =
    "Anna has 12 apples. Ben gives Anna 30 apples. How many apples does Anna "
    "have now?";
const generate::SamplerOptions kGreedy{.temperature = 0.f};

const LoadedModel& tiny() {
  static const LoadedModel model =
      load_model(testing::tiny_model_path().string());
  return model;
}

fs::path questions() {
  return testing::tiny_model_path() / "eval_arithmetic.jsonl";
}

/** The tiny model's files as links in a folder. */
void link_tiny(const fs::path& folder) {
  fs::create_directories(folder);
  for (const auto& entry :
       fs::directory_iterator(fs::absolute(testing::tiny_model_path()))) {
    fs::create_symlink(entry.path(), folder / entry.path().filename());
  }
}

/** A cache of the hub for this test alone. */
class HubCache : public ::testing::Test {
 protected:
  void SetUp() override {
    ::setenv("HF_HUB_CACHE", folder_.path().c_str(), 1);
  }
  void TearDown() override {
    ::unsetenv("HF_HUB_CACHE");
  }
  test::ScratchFolder folder_;
};

TEST_F(HubCache, LoadsWhatItHoldsByItsName) {
  const std::string commit(40, 'a');
  const fs::path repo = folder_.path() / "models--org--tiny";
  link_tiny(repo / "snapshots" / commit);
  fs::create_directories(repo / "refs");
  std::ofstream(repo / "refs" / "main") << commit;
  const LoadedModel model = load_model("org/tiny");
  EXPECT_EQ(
      model.network->info().parameters, tiny().network->info().parameters);
}

TEST_F(HubCache, DownloadsNothing) {
  test::expect_error(
      ErrorKind::NotFound, {"org/absent", "network is not to be used"}, [] {
        load_model("org/absent");
      });
  test::expect_error(ErrorKind::NotFound, {"./absent", "no such file"}, [] {
    load_model("./absent");
  });
}

TEST(GenerateText, AnswersPieceByPiece) {
  std::string pieces;
  std::size_t n_pieces = 0;
  const GeneratedText answer = generate_text(
      tiny(),
      kQuestion,
      {.sampler = kGreedy, .on_text = [&](const std::string& piece) {
         pieces += piece;
         ++n_pieces;
       }});
  EXPECT_NE(answer.text.find("42"), std::string::npos) << answer.text;
  EXPECT_EQ(answer.completion.reason, generate::FinishReason::Stop);
  EXPECT_EQ(
      answer.text, tiny().tokenizer->decode(answer.completion.tokens, true));
  EXPECT_EQ(pieces, answer.text);
  EXPECT_GT(n_pieces, 2u);
  EXPECT_TRUE(answer.notices.empty());
}

TEST(GenerateText, DrawsAsTheModelSaysFromOneSeed) {
  const auto first = generate_text(tiny(), kQuestion).completion.tokens;
  EXPECT_EQ(generate_text(tiny(), kQuestion).completion.tokens, first);
  auto sampler = generate::read_generation_config(tiny().directory).sampler;
  EXPECT_GT(sampler.temperature, 0.f);
  EXPECT_EQ(
      generate_text(tiny(), kQuestion, {.sampler = sampler}).completion.tokens,
      first);
}

TEST(GenerateText, TakesLengthSystemMessageAndRawPrompts) {
  const auto tokens = [](const TextOptions& options) {
    return generate_text(tiny(), "Why?", options).completion.tokens;
  };
  const auto plain = tokens({.max_tokens = 8, .sampler = kGreedy});
  EXPECT_EQ(plain.size(), 8u);
  EXPECT_NE(tokens({.raw = true, .max_tokens = 8, .sampler = kGreedy}), plain);
  EXPECT_NE(
      tokens(
          {.system = "The number is 57.", .max_tokens = 8, .sampler = kGreedy}),
      plain);
}

TEST(GenerateText, DoesWhatGenerationConfigAsks) {
  const test::ScratchFolder folder;
  const fs::path path = folder.path() / "model";
  link_tiny(path);
  fs::remove(path / "generation_config.json");
  std::ofstream(path / "generation_config.json")
      << R"({"max_new_tokens": 3, "max_time": 1.5})";
  const auto answer = generate_text(load_model(path.string()), kQuestion);
  EXPECT_EQ(answer.completion.tokens.size(), 3u);
  EXPECT_EQ(answer.completion.reason, generate::FinishReason::Length);
  EXPECT_EQ(answer.notices.size(), 1u);
}

TEST(GenerateText, RefusesWhatCannotBe) {
  using Kind = ErrorKind;
  const auto refuses = [](Kind kind, const char* says, TextOptions options) {
    test::expect_error(
        kind, {says}, [&] { generate_text(tiny(), kQuestion, options); });
  };
  refuses(Kind::InvalidInput, "top_p", {.sampler = {{.top_p = 2.f}}});
  refuses(Kind::InvalidInput, "positions", {.max_tokens = 1 << 20});
  refuses(Kind::InvalidInput, "raw", {.system = "Be brief.", .raw = true});
  refuses(Kind::Exhausted, "", {.max_cache_bytes = 1});
}

TEST(Measure, PerplexityIsThatOfTheRows) {
  const auto dataset = eval::load_dataset(questions(), 3);
  const auto rows = eval::encode_chats(
      eval::render_chats(
          dataset, generate::load_chat_template(tiny().directory)),
      *tiny().tokenizer);
  std::uint64_t reported = 0;
  const auto scores = measure_perplexity(
      tiny(),
      questions(),
      {.limit = 3, .on_progress = [&](const ProgressEvent& event) {
         reported = event.done;
       }});
  EXPECT_EQ(
      scores.ppl,
      eval::measure_perplexity(
          {tiny().network, kernels::Compute::Exact}, rows, {})
          .ppl);
  EXPECT_EQ(scores.rows, 3u);
  EXPECT_GT(reported, 0u);
}

TEST(Measure, PlainTextIsCutIntoChunks) {
  const test::ScratchFolder folder;
  const fs::path text = folder.path() / "text.txt";
  const std::string words = "In the beginning was the word, and then another.";
  std::ofstream(text) << words;
  EXPECT_EQ(
      measure_perplexity(tiny(), text, {.seq_len = 4}).rows,
      tiny().tokenizer->encode(words, true).size() / 4);
  EXPECT_EQ(measure_perplexity(tiny(), text).rows, 1u);
  test::expect_error(ErrorKind::InvalidInput, {"chunks"}, [] {
    measure_perplexity(tiny(), questions(), {.seq_len = 4});
  });
}

TEST(Measure, KlToItselfIsZero) {
  const auto same = measure_kl(tiny(), tiny(), questions(), {.limit = 2});
  EXPECT_EQ(same.mean_kl, 0.);
  EXPECT_EQ(same.top1_agreement, 1.);
  const auto rounded = measure_kl(
      tiny(),
      tiny(),
      questions(),
      {.limit = 2, .compute = kernels::Compute::Int8});
  EXPECT_GT(rounded.mean_kl, 0.);
}

} // namespace
} // namespace optiq
