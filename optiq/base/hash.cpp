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
    fail(ErrorKind::Internal, "[Sha256] libcrypto refused a SHA-256 call");
  }
}

} // namespace

struct Sha256::State {
  std::unique_ptr<EVP_MD_CTX, FreeContext> context{EVP_MD_CTX_new()};
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  if (!state_->context) {
    throw std::bad_alloc();
  }
  require_success(
      EVP_DigestInit_ex(state_->context.get(), EVP_sha256(), nullptr));
}

Sha256::~Sha256() = default;

Sha256& Sha256::update(std::span<const std::byte> bytes) {
  require_success(
      EVP_DigestUpdate(state_->context.get(), bytes.data(), bytes.size()));
  return *this;
}

Sha256& Sha256::update(std::string_view text) {
  return update(std::as_bytes(std::span(text)));
}

std::string Sha256::hex_digest() {
  std::array<unsigned char, 32> digest{};
  require_success(
      EVP_DigestFinal_ex(state_->context.get(), digest.data(), nullptr));
  std::string text;
  for (const unsigned char byte : digest) {
    text += fmt::format("{:02x}", byte);
  }
  return text;
}

} // namespace optiq
