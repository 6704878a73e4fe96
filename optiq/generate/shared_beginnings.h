#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace optiq::generate {

using Prompts = std::span<const std::span<const std::int32_t>>;

/** Tokens that two prompts have in common at their beginning. */
std::size_t common_length(
    std::span<const std::int32_t> a,
    std::span<const std::int32_t> b);

/** Of each prompt, how many tokens it has in common with the one of the others
 * that it shares most with. */
std::vector<std::size_t> shared_beginnings(Prompts prompts);

} // namespace optiq::generate
