#include "optiq/base/hash.h"

#include <gtest/gtest.h>

namespace optiq {
namespace {

TEST(Sha256, GivesThePublishedDigests) {
  // FIPS 180-4 examples: "", "abc", and a million letters a.
  EXPECT_EQ(
      Sha256().hex_digest(),
      "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(
      Sha256().update("abc").hex_digest(),
      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(
      Sha256().update(std::string(1'000'000, 'a')).hex_digest(),
      "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PiecesGiveTheDigestOfTheWhole) {
  const std::string text(1000, 'q');
  const std::string whole = Sha256().update(text).hex_digest();
  for (const std::size_t cut : {0u, 1u, 63u, 64u, 65u, 999u, 1000u}) {
    Sha256 hash;
    hash.update(text.substr(0, cut)).update(text.substr(cut));
    EXPECT_EQ(hash.hex_digest(), whole) << cut;
  }
}

TEST(Sha1, GivesThePublishedDigests) {
  // FIPS 180-4 example "abc", and what git calls an empty blob.
  EXPECT_EQ(
      Sha1().update("abc").hex_digest(),
      "a9993e364706816aba3e25717850c26c9cd0d89d");
  EXPECT_EQ(
      Sha1().update(std::string_view("blob 0\0", 7)).hex_digest(),
      "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
}

} // namespace
} // namespace optiq
