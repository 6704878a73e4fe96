#include "optiq/server/openapi.h"

#include <gtest/gtest.h>

#include "support/generated_page.h"

namespace optiq::server {
namespace {

TEST(OpenApi, TheFileIsWhatTheTablesSay) {
  test::expect_page(
      "docs/openapi.json", artifacts::dump_json(openapi_document(), 1));
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
