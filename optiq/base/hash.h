#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace optiq {

/** An incremental hash, by OpenSSL's libcrypto. */
class MessageDigest {
 public:
  ~MessageDigest();
  MessageDigest(const MessageDigest&) = delete;
  MessageDigest& operator=(const MessageDigest&) = delete;

  MessageDigest& update(std::span<const std::byte> bytes);
  MessageDigest& update(std::string_view text);
  /** In hexadecimal digits. The object is spent afterwards. */
  std::string hex_digest();

 protected:
  /** `algorithm` is OpenSSL's name: "SHA256". */
  explicit MessageDigest(const char* algorithm);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/** SHA-256 (FIPS 180-4), 64 hexadecimal digits. */
class Sha256 : public MessageDigest {
 public:
  Sha256() : MessageDigest("SHA256") {}
};

/** SHA-1, 40 hexadecimal digits: what git names objects by. Proves that bytes
 * are complete, not who made them. */
class Sha1 : public MessageDigest {
 public:
  Sha1() : MessageDigest("SHA1") {}
};

} // namespace optiq
