#pragma once

#include <functional>
#include <vector>

#include "optiq/artifacts/json.h"
#include "optiq/kernels/profile.h"

namespace optiq::cli {

/** Where the time of one piece of work went. */
struct WorkProfile {
  double seconds = 0; // in all, the time between operations included
  std::vector<kernels::OpTotal> totals; // the longest first
};

/** Runs `work`, which returns its own seconds, once under a profile. */
WorkProfile profile_work(const std::function<double()>& work);

/** A table: operation, calls, time per call, share, GB/s. */
void print_profile(const char* title, const WorkProfile& profile);

/** [{"op", "calls", "seconds", "bytes"}...] */
artifacts::Json to_json(const WorkProfile& profile);

} // namespace optiq::cli
