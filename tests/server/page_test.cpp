#include "optiq/server/page.h"

#include <algorithm>
#include <map>

#include <gtest/gtest.h>

namespace optiq::server {
namespace {

std::map<std::string, HttpResponse> whole_page() {
  std::map<std::string, HttpResponse> page;
  for (const std::string& path : page_paths()) {
    page.emplace(path, page_response(path).value());
  }
  return page;
}

TEST(Page, ServesItsFilesUnderTheirPaths) {
  const auto page = whole_page();
  EXPECT_TRUE(page.at("/").body.starts_with("<!DOCTYPE html>"));
  EXPECT_EQ(page.at("/").content_type, "text/html; charset=utf-8");
  EXPECT_EQ(
      page.at("/page/main.js").content_type, "text/javascript; charset=utf-8");
  for (const auto& [path, response] : page) {
    EXPECT_EQ(response.status, 200) << path;
    EXPECT_FALSE(response.body.empty()) << path;
  }
  EXPECT_FALSE(page_response("/index.html"));
  EXPECT_FALSE(page_response("/page"));
  EXPECT_FALSE(page_response("/page/"));
  EXPECT_FALSE(page_response("/page/../page/main.js"));
}

TEST(Page, NamesEveryFileAndNothingFromElsewhere) {
  std::string all;
  for (const auto& [path, response] : whole_page()) {
    all += response.body;
  }
  for (const std::string& path : page_paths()) {
    const std::string name = path.substr(path.rfind('/') + 1);
    EXPECT_NE(all.find(name), std::string::npos) << path;
  }
  for (const char* other : {"src=\"http", "href=\"http", "@import", "url("}) {
    EXPECT_EQ(all.find(other), std::string::npos) << other;
  }
}

TEST(Page, ForbidsWhatItDoesNotUse) {
  for (const auto& [path, response] : whole_page()) {
    const auto policy = std::find_if(
        response.headers.begin(),
        response.headers.end(),
        [](const auto& header) {
          return header.first == "content-security-policy";
        });
    ASSERT_NE(policy, response.headers.end()) << path;
    EXPECT_TRUE(policy->second.starts_with("default-src 'none'; ")) << path;
    EXPECT_EQ(policy->second.find("unsafe"), std::string::npos) << path;
    EXPECT_EQ(policy->second.find('*'), std::string::npos) << path;
  }
}

} // namespace
} // namespace optiq::server
