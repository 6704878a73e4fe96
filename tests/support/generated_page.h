#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

#include <gtest/gtest.h>

#include "support/scratch_folder.h"

namespace optiq::test {

/** Expects a page of the repository to be what the program says of itself. With
 * OPTIQ_WRITE_DOCS in the environment it is written. */
inline void expect_page(const std::string& page, const std::string& text) {
  const char* root = std::getenv("OPTIQ_SOURCE_DIR"); // ctest sets it
  const auto path = std::filesystem::path(root != nullptr ? root : ".") / page;
  if (std::getenv("OPTIQ_WRITE_DOCS") != nullptr) {
    write_file(path, text);
  }
  EXPECT_EQ(read_file(path), text)
      << "OPTIQ_WRITE_DOCS=1 makes this test write it";
}

} // namespace optiq::test
