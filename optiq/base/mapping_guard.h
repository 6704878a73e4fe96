#pragma once

/** What happens when a file that is mapped (MappedFile) becomes shorter, or its
 * disk fails, while it is in use. */
namespace optiq {

/**
 * Without this call the process dies of SIGBUS at the next touch of a page that
 * is gone. After it, such a page and those behind it read as zeros, and
 * check_mappings throws. It sets the process's handler of SIGBUS, which hands
 * every fault that is not in a mapping of ours to the handler before it: a
 * program calls it once, after it has set its own; the library never does.
 */
void guard_mappings();

/** Whether these bytes are of a mapped file: its pages can be let go of. */
bool is_mapped(const void* bytes);

/**
 * Throws Io, naming the file, when zeros were read in place of it. Models call
 * it after every forward and OutputFile before a file is complete, so that
 * nothing which was computed from such zeros gets out. It throws as long as the
 * mapping lives, and once for one that died before it was reported.
 */
void check_mappings();

} // namespace optiq
