#pragma once

#include <cstdint>
#include <string>

namespace optiq::artifacts {

/** Bits per weight of a file: 8 * bytes / parameters. 0 parameters: 0. */
double file_bpw(std::uint64_t bytes, std::uint64_t parameters);

/**
 * Bytes of one affine-quantized matrix as stored: codes plus 16-bit scales and
 * biases. `out` x `in` weights, `in` a multiple of group_size.
 */
std::uint64_t
quantized_bytes(std::uint64_t out, std::uint64_t in, int bits, int group_size);

/** "600MB" (10^6), "1.5GiB" (2^30), "123456" (bytes). Throws InvalidInput. */
std::uint64_t parse_size(const std::string& text);

/** "18.6 MB". */
std::string format_size(std::uint64_t bytes);

} // namespace optiq::artifacts
