#include "optiq/io/mlx_version.h"

#include <gtest/gtest.h>

#include "optiq/base/error.h"

namespace optiq::io {
namespace {

TEST(MlxVersion, TheLoadedLibraryIsTheOneBuiltAgainst) {
  EXPECT_EQ(loaded_mlx_version(), built_mlx_version());
  EXPECT_NO_THROW(check_mlx_version(built_mlx_version(), loaded_mlx_version()));
}

TEST(MlxVersion, AMismatchIsRefusedWithBothVersions) {
  try {
    check_mlx_version("0.32.4", "0.33.0");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Unsupported);
    const std::string message = error.what();
    EXPECT_NE(message.find("found version 0.33.0"), std::string::npos);
    EXPECT_NE(message.find("expected 0.32.4"), std::string::npos);
  }
}

} // namespace
} // namespace optiq::io
