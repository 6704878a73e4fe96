#include "optiq/cli/bench_profile.h"

#include <string>

#include <fmt/format.h>

#include "optiq/cli/output.h"

namespace optiq::cli {
namespace {

/** "matmul 576 -> 960, 4 bits". */
std::string label(const kernels::OpKey& key) {
  return key.in == 0
      ? std::string(key.name)
      : fmt::format(
            "{} {} -> {}, {} bits", key.name, key.in, key.out, key.bits);
}

double seconds_outside(const WorkProfile& profile) {
  double outside = profile.seconds;
  for (const kernels::OpTotal& total : profile.totals) {
    outside -= total.seconds;
  }
  return outside;
}

} // namespace

WorkProfile profile_work(const std::function<double()>& work) {
  kernels::OpProfile profile;
  const double seconds = work();
  return {seconds, profile.totals()};
}

void print_profile(const char* title, const WorkProfile& profile) {
  print(
      "\n{:<36} {:>8} {:>12} {:>7} {:>7}\n",
      title,
      "calls",
      "ns per call",
      "share",
      "GB/s");
  for (const kernels::OpTotal& total : profile.totals) {
    print(
        "{:<36} {:>8} {:>12.0f} {:>5.1f} % {:>7}\n",
        label(total.key),
        total.calls,
        total.seconds / static_cast<double>(total.calls) * 1e9,
        total.seconds / profile.seconds * 100,
        total.bytes == 0
            ? ""
            : fmt::format(
                  "{:.1f}",
                  static_cast<double>(total.bytes) / total.seconds / 1e9));
  }
  print(
      "{:<36} {:>8} {:>12} {:>5.1f} %\n",
      "between operations",
      "",
      "",
      seconds_outside(profile) / profile.seconds * 100);
}

artifacts::Json to_json(const WorkProfile& profile) {
  artifacts::Json ops = artifacts::Json::array();
  for (const kernels::OpTotal& total : profile.totals) {
    ops.push_back(
        {{"op", label(total.key)},
         {"calls", total.calls},
         {"seconds", total.seconds},
         {"bytes", total.bytes}});
  }
  ops.push_back(
      {{"op", "between operations"}, {"seconds", seconds_outside(profile)}});
  return ops;
}

} // namespace optiq::cli
