#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace optiq {

/** Incremental SHA-256 (FIPS 180-4), by OpenSSL's libcrypto. */
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  Sha256& update(std::span<const std::byte> bytes);
  Sha256& update(std::string_view text);
  /** 64 hexadecimal digits. The object is spent afterwards. */
  std::string hex_digest();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

} // namespace optiq
