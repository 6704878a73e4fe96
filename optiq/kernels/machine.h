#pragma once

#include <cstddef>
#include <string>
#include <vector>

/** The CPU that this process runs on. */
namespace optiq::kernels {

/** Name of the SIMD target in use: "AMX", "AVX3_ZEN4", "AVX2", "SSE2",
 * "NEON"... */
std::string simd_target();
/** Targets this build can run here. */
std::vector<std::string> simd_targets();
/** Forces a target (also OPTIQ_SIMD, read once at start-up by the CLI).
 * Throws InvalidInput naming the targets available. "" = the best. */
void force_simd_target(const std::string& name);

/** Read bandwidth of the pool over `bytes` of memory, bytes per second: best of
 * `repeats`. */
double measure_read_bandwidth(std::size_t bytes, int repeats);
/** Peak of the int8 dot instruction over the pool, multiply-adds per second. */
double measure_int8_dot_peak(int repeats);

} // namespace optiq::kernels
