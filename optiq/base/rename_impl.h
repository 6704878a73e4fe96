#pragma once

#include <string>

/** Renames of folders within one open folder that never cost anybody a file. */
namespace optiq {

/** Gives `from` a name that nothing has. Returns 0 or an errno (EEXIST). */
int rename_to_new(int folder, const std::string& from, const std::string& to);

/** Lets two entries change their names in one step. Returns 0 or an errno;
 * ENOTSUP when the system or the file system cannot. */
int exchange_names(int folder, const std::string& a, const std::string& b);

} // namespace optiq
