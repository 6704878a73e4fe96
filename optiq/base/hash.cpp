#include "optiq/base/hash.h"

#include <array>
#include <new>

#include <fmt/format.h>
#include <openssl/evp.h>

#include "optiq/base/error.h"

namespace optiq {
namespace {

struct FreeContext {
  void operator()(EVP_MD_CTX* context) const {
    EVP_MD_CTX_free(context);
  }
};

void require_success(int result) {
  if (result != 1) {
    fail(ErrorKind::Internal, "[MessageDigest] libcrypto refused a call");
  }
}

} // namespace

struct MessageDigest::State {
  std::unique_ptr<EVP_MD_CTX, FreeContext> context{EVP_MD_CTX_new()};
};

MessageDigest::MessageDigest(const char* algorithm)
    : state_(std::make_unique<State>()) {
  if (!state_->context) {
    throw std::bad_alloc();
  }
  require_success(EVP_DigestInit_ex(
      state_->context.get(), EVP_get_digestbyname(algorithm), nullptr));
}

MessageDigest::~MessageDigest() = default;

MessageDigest& MessageDigest::update(std::span<const std::byte> bytes) {
  require_success(
      EVP_DigestUpdate(state_->context.get(), bytes.data(), bytes.size()));
  return *this;
}

MessageDigest& MessageDigest::update(std::string_view text) {
  return update(std::as_bytes(std::span(text)));
}

std::string MessageDigest::hex_digest() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  require_success(
      EVP_DigestFinal_ex(state_->context.get(), digest.data(), &size));
  std::string text;
  for (const unsigned char byte : std::span(digest).first(size)) {
    text += fmt::format("{:02x}", byte);
  }
  return text;
}

} // namespace optiq
