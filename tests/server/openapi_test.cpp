#include "optiq/server/openapi.h"

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include <gtest/gtest.h>

namespace optiq::server {
namespace {

TEST(OpenApi, TheFileIsWhatTheTablesSay) {
  const std::string path =
      std::string(std::getenv("OPTIQ_SOURCE_DIR")) + "/docs/openapi.json";
  const std::string text = artifacts::dump_json(openapi_document(), 1);
  if (std::getenv("OPTIQ_WRITE_DOCS") != nullptr) {
    std::ofstream(path) << text;
  }
  std::ifstream file(path);
  const std::string document{
      std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  EXPECT_EQ(document, text) << "OPTIQ_WRITE_DOCS=1 makes this test write it";
}

TEST(OpenApi, EveryFieldIsDescribed) {
  const artifacts::Json document = openapi_document();
  for (const char* path :
       {"/v1/chat/completions", "/v1/completions", "/tokenize"}) {
    const auto& fields =
        document["paths"][path]["post"]["requestBody"]["content"]
                ["application/json"]["schema"]["properties"];
    for (const auto& [name, schema] : fields.items()) {
      EXPECT_NE(schema.value("description", ""), "") << path << " " << name;
    }
  }
}

} // namespace
} // namespace optiq::server
