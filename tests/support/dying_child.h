#pragma once

#include <csignal>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace optiq::test {

/** Runs `body` in a child that then dies without any cleanup, as by kill -9;
 * returns its process id after its death. */
template <typename Body>
pid_t run_and_die(Body&& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    body();
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status)); // it came to the end of body
  return child;
}

} // namespace optiq::test
