#pragma once

#include <string>

#include <gtest/gtest.h>

#include "optiq/server/request_error.h"

namespace optiq::testing {

/** The error that refuses a request. */
template <typename Call>
server::ApiError refusal_of(Call&& call) {
  try {
    call();
  } catch (const server::RequestError& error) {
    return error.api_error();
  }
  ADD_FAILURE() << "expected a refusal";
  return {};
}

/** Expects a 400 that names the field, with this code, and whose message has
 * the text. */
template <typename Call>
void expect_refused(
    const std::string& param,
    const std::string& code,
    const std::string& text,
    Call&& call) {
  const server::ApiError error = refusal_of(call);
  EXPECT_EQ(error.status, 400) << error.message;
  EXPECT_EQ(error.param, param) << error.message;
  EXPECT_EQ(error.code, code) << error.message;
  EXPECT_NE(error.message.find(text), std::string::npos) << error.message;
}

} // namespace optiq::testing
