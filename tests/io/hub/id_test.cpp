#include "optiq/io/hub/id.h"

#include <string>

#include <gtest/gtest.h>

namespace optiq::io {
namespace {

TEST(HubId, TakesItsParts) {
  const auto plain = parse_hub_id("Qwen/Qwen3.5-9B");
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->repo, "Qwen/Qwen3.5-9B");
  EXPECT_EQ(plain->revision, "main");
  EXPECT_EQ(plain->file, "");
  const auto full = parse_hub_id("a/b@refs/pr/1:sub/x.gguf");
  ASSERT_TRUE(full);
  EXPECT_EQ(full->repo, "a/b");
  EXPECT_EQ(full->revision, "refs/pr/1");
  EXPECT_EQ(full->file, "sub/x.gguf");
  EXPECT_EQ(full->text(), "a/b@refs/pr/1:sub/x.gguf");
  EXPECT_EQ(parse_hub_id("a/b:x.gguf")->file, "x.gguf");
}

TEST(HubId, RefusesWhatIsNone) {
  for (const char* text :
       {"",
        "a",
        "/a/b",
        "./a/b",
        "../b",
        "a/..",
        "a/b/c",
        "a//b",
        "a/",
        "/b",
        "a/b@",
        "a/b@../x",
        "a/b@x y",
        "a/b:",
        "a/b:../x.gguf",
        "a/b:/x.gguf",
        "a/b:x.bin",
        "a:x.gguf@y/b",
        "a/b--c",
        "-a/b",
        "a/.b",
        "~/models/x",
        "a b/c",
        "a/b\n"}) {
    EXPECT_FALSE(parse_hub_id(text)) << text;
  }
  EXPECT_TRUE(parse_hub_id(std::string(47, 'a') + "/" + std::string(48, 'b')));
  EXPECT_FALSE(parse_hub_id(std::string(48, 'a') + "/" + std::string(48, 'b')));
}

TEST(HubId, KnowsTheFirstModelsOfACache) {
  EXPECT_EQ(parse_cached_id("gpt2@v1")->repo, "gpt2");
  EXPECT_EQ(parse_cached_id("a/b")->repo, "a/b");
  for (const char* text : {"", ".", "..", "a--b", "/a", "a/", "a/b/c", "a b"}) {
    EXPECT_FALSE(parse_cached_id(text)) << text;
  }
}

TEST(HubId, KnowsSafePaths) {
  for (const char* path : {"a", "a/b", ".gitattributes", "a..b", "...", "é"}) {
    EXPECT_TRUE(is_safe_relative_path(path)) << path;
  }
  for (const char* path :
       {"",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/..",
        "../a",
        "a/./b",
        "a\\b",
        "a\tb",
        "a\x7f"}) {
    EXPECT_FALSE(is_safe_relative_path(path)) << path;
  }
  EXPECT_FALSE(is_safe_relative_path(std::string("a\0b", 3)));
  EXPECT_TRUE(is_safe_relative_path(std::string(255, 'a')));
  EXPECT_FALSE(is_safe_relative_path(std::string(256, 'a')));
}

TEST(HubId, KnowsCommits) {
  EXPECT_TRUE(is_commit("0123456789abcdef0123456789abcdef01234567"));
  EXPECT_FALSE(is_commit("0123456789abcdef0123456789abcdef0123456"));
  EXPECT_FALSE(is_commit("0123456789ABCDEF0123456789abcdef01234567"));
  EXPECT_FALSE(is_commit("main"));
}

} // namespace
} // namespace optiq::io
