#pragma once

namespace optiq::test {

/** Between two looks at the clock a fixed amount of work is done, which
 * ThreadSanitizer makes five to fifteen times as slow: tests of limits of time
 * allow for it, or do less by as much. */
#if defined(__SANITIZE_THREAD__)
inline constexpr int kSlowdown = 10;
#else
inline constexpr int kSlowdown = 1;
#endif

} // namespace optiq::test
