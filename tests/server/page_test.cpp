#include "optiq/server/page.h"

#include <algorithm>

#include <gtest/gtest.h>

namespace optiq::server {
namespace {

TEST(Page, ServesItsFilesUnderTheirPaths) {
  for (const PageFile& file : page_files()) {
    const auto response = page_response(file.path);
    ASSERT_TRUE(response) << file.path;
    EXPECT_EQ(response->status, 200);
    EXPECT_EQ(response->content_type, file.content_type);
    EXPECT_EQ(response->body, file.bytes);
    EXPECT_FALSE(response->body.empty());
    EXPECT_EQ(response->headers, page_headers());
  }
  EXPECT_TRUE(page_response("/")->body.starts_with("<!DOCTYPE html>"));
  EXPECT_FALSE(page_response("/page"));
  EXPECT_FALSE(page_response("/page/../main.js"));
}

TEST(Page, AsksForNothingButItsOwnFiles) {
  std::string all;
  for (const PageFile& file : page_files()) {
    all += file.bytes;
  }
  for (const PageFile& file : page_files()) {
    if (file.path != "/") {
      const auto name = file.path.substr(file.path.rfind('/') + 1);
      EXPECT_NE(all.find(name), std::string::npos) << file.path;
    }
  }
  for (const char* other : {"//cdn", "@import", "url(http", "src=\"http"}) {
    EXPECT_EQ(all.find(other), std::string::npos) << other;
  }
}

TEST(Page, ForbidsWhatItDoesNotUse) {
  const Headers headers = page_headers();
  const auto policy =
      std::find_if(headers.begin(), headers.end(), [](const auto& header) {
        return header.first == "content-security-policy";
      });
  ASSERT_NE(policy, headers.end());
  EXPECT_TRUE(policy->second.starts_with("default-src 'none'; "));
  EXPECT_EQ(policy->second.find("unsafe"), std::string::npos);
  EXPECT_EQ(policy->second.find('*'), std::string::npos);
}

} // namespace
} // namespace optiq::server
