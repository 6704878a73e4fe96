#include "optiq/eval/dataset.h"

#include <fstream>

#include <gtest/gtest.h>

#include "support/expect_error.h"

#include "optiq/base/error.h"

namespace optiq::eval {
namespace {

class DatasetFile : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() /
        ("optiq_dataset_" +
         std::string(
             ::testing::UnitTest::GetInstance()->current_test_info()->name()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override {
    std::filesystem::remove_all(folder_);
  }

  std::filesystem::path write(const char* name, const std::string& content) {
    auto path = folder_ / name;
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

  std::filesystem::path folder_;
};

TEST_F(DatasetFile, ReadsRowsWithBlankLinesAndCarriageReturns) {
  const auto path = write(
      "q.jsonl",
      "\xEF\xBB\xBF{\"question\": \"a\", \"value\": \"36\"}\r\n"
      "\r\n"
      "{\"question\": \"b\", \"answer\": \"1 + 1 = 2\\n#### 2\"}\n"
      "{\"question\": \"c\", \"value\": 1.5, \"other\": [1]}");
  const Dataset dataset = load_dataset(path, 0);
  EXPECT_EQ(dataset.name, "q.jsonl");
  ASSERT_EQ(dataset.rows.size(), 3u);
  EXPECT_EQ(dataset.rows[0].value, "36");
  EXPECT_EQ(dataset.rows[1].line, 3u);
  EXPECT_EQ(dataset.rows[1].answer, "1 + 1 = 2\n#### 2");
  EXPECT_EQ(
      wanted_numbers(dataset), (std::vector<std::string>{"36", "2", "1.5"}));
}

TEST_F(DatasetFile, LimitTakesTheFirstRowsAndReadsNoFurther) {
  const auto path = write(
      "q.jsonl",
      "{\"question\": \"a\", \"value\": \"1\"}\n"
      "{\"question\": \"b\", \"value\": \"2\"}\n"
      "broken\n");
  EXPECT_EQ(load_dataset(path, 2).rows.size(), 2u);
  EXPECT_THROW(load_dataset(path, 3), Error);
}

TEST_F(DatasetFile, OtherNamesArePlainText) {
  const Dataset dataset = load_dataset(write("t.txt", "{\"question\": 1}"), 0);
  EXPECT_TRUE(dataset.rows.empty());
  EXPECT_EQ(dataset.text, "{\"question\": 1}");
}

struct BadFile {
  const char* what;
  const char* name;
  const char* content;
  ErrorKind kind;
  const char* says;
};

TEST_F(DatasetFile, BadFilesAreErrorsThatNameTheLine) {
  const BadFile cases[] = {
      {"empty", "e.jsonl", "", ErrorKind::InvalidInput, "empty"},
      {"blank", "b.txt", " \n\t\r\n", ErrorKind::InvalidInput, "empty"},
      {"no JSON",
       "q.jsonl",
       "{\"question\": \"a\", \"value\": 1}\nnot json\n",
       ErrorKind::Corrupt,
       "line 2"},
      {"cut", "q.jsonl", "{\"question\": \"a\"", ErrorKind::Corrupt, "line 1"},
      {"a list", "q.jsonl", "\n[1]\n", ErrorKind::Corrupt, "line 2"},
      {"no question",
       "q.jsonl",
       "{\"answer\": \"a\"}",
       ErrorKind::Corrupt,
       "question"},
      {"question of another type",
       "q.jsonl",
       "{\"question\": 3, \"value\": 1}",
       ErrorKind::Corrupt,
       "line 1"},
      {"value of another type",
       "q.jsonl",
       "{\"question\": \"a\", \"value\": [1]}",
       ErrorKind::Corrupt,
       "value"},
      {"neither answer nor value",
       "q.jsonl",
       "{\"question\": \"a\"}",
       ErrorKind::Corrupt,
       "neither"},
  };
  for (const BadFile& c : cases) {
    try {
      load_dataset(write(c.name, c.content), 0);
      ADD_FAILURE() << c.what << " was accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), c.kind) << c.what << ": " << e.what();
      EXPECT_NE(std::string(e.what()).find(c.says), std::string::npos)
          << c.what << ": " << e.what();
    }
  }
}

TEST_F(DatasetFile, MissingFileIsNotFound) {
  try {
    load_dataset(folder_ / "absent.jsonl", 0);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::NotFound);
  }
}

TEST(WantedNumbers, NamesTheLineWithoutANumber) {
  const DatasetRow bad[] = {
      {.line = 7, .question = "q", .answer = "", .value = "many"},
      {.line = 7, .question = "q", .answer = "no mark 5", .value = ""},
      {.line = 7, .question = "q", .answer = "5 #### none", .value = ""},
  };
  for (const DatasetRow& row : bad) {
    try {
      wanted_numbers({.name = "f.jsonl", .rows = {row}, .text = ""});
      ADD_FAILURE() << row.value << row.answer;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::InvalidInput);
      EXPECT_NE(std::string(e.what()).find("line 7"), std::string::npos);
    }
  }
}

TEST(RenderChats, UsesTheTemplateAndNeedsAnswers) {
  const auto chat = text::ChatTemplate::parse(
      "{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}"
      "{% if add_generation_prompt %}[assistant:{% endif %}",
      "test");
  Dataset dataset{
      .name = "f.jsonl",
      .rows = {{.line = 4, .question = "q", .answer = "a", .value = ""}},
      .text = ""};
  EXPECT_EQ(
      render_chats(dataset, chat),
      std::vector<std::string>{"[user:q][assistant:a]"});
  EXPECT_EQ(
      render_questions(dataset, chat),
      std::vector<std::string>{"[user:q][assistant:"});
  dataset.rows[0].answer.clear();
  try {
    render_chats(dataset, chat);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("line 4"), std::string::npos);
  }
}

TEST(SameTokens, AreRequiredOfModelAndReference) {
  const std::vector<TokenRow> rows{{1, 2, 3}, {4}};
  require_same_tokens(rows, rows, "model", "reference", "text.txt");
  test::expect_error(
      ErrorKind::InvalidInput, {"model", "reference", "text.txt"}, [&] {
        require_same_tokens(
            rows, {{1, 2}, {3, 4}}, "model", "reference", "text.txt");
      });
}

} // namespace
} // namespace optiq::eval
