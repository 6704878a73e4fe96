#pragma once

#include <span>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

namespace optiq::cli {

/** How flags of one command belong together. */
struct FlagRule {
  enum class Relation {
    OnlyWith, // a flag has a meaning beside such a partner only
    NotWith, // such a partner leaves a flag nothing to say
    Needs, // such a partner asks for a flag; one of `flags` is enough
  };
  const char* command; // its full name
  std::vector<const char*> flags;
  Relation relation;
  const char* partner;
  /** Of the partner; empty: that it is given at all. One of a list's items is
   * enough. */
  std::vector<const char*> values;
  /** What the partner is when it is not given; null: nothing. */
  const char* partner_default;
  const char* reason; // a clause that ends a sentence
  /** Beside one of these flags with one of its values, or given at all where it
   * has none, the rule does not hold. */
  struct Exception {
    const char* flag;
    std::vector<const char*> values = {};
  };
  std::vector<Exception> exceptions = {};
};

/** The commands that do something: of those that have commands of their own,
 * these. */
std::vector<CLI::App*> commands_of(CLI::App& app);

/** As the user writes it behind `optiq`: "lora info". */
std::string full_name(const CLI::App& command);

/** Every rule of every command: the one place that says which flags belong
 * together. docs/flags.md is made from it. */
std::span<const FlagRule> flag_rules();

/** Throws InvalidInput that names both flags where a rule of the command is
 * broken by what the command line gave. */
void check_flag_rules(const CLI::App& command);

/** docs/flags.md: each command's flags, and their partners. */
std::string describe_flags(CLI::App& app);

} // namespace optiq::cli
