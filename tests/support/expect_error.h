#pragma once

#include <initializer_list>
#include <string>

#include <gtest/gtest.h>

#include "optiq/base/error.h"

namespace optiq::test {

/** Expects that `call` throws optiq::Error of `kind` whose message has every
 * text of `parts`. */
template <typename Call>
void expect_error(
    ErrorKind kind,
    std::initializer_list<std::string> parts,
    Call&& call) {
  try {
    call();
    ADD_FAILURE() << "expected an error of kind " << name_of(kind);
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_STREQ(name_of(error.kind()), name_of(kind)) << message;
    for (const std::string& part : parts) {
      EXPECT_NE(message.find(part), std::string::npos)
          << "'" << part << "' is not in: " << message;
    }
  }
}

} // namespace optiq::test
