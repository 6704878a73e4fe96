#pragma once

#include <string_view>

namespace optiq::eval {

/** data/needle/filler.txt: a sentence a line. */
std::string_view needle_filler();

} // namespace optiq::eval
