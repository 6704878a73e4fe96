#include "optiq/cli/flag_rules.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/generated_page.h"

#include "optiq/base/error.h"
#include "optiq/cli/app.h"

namespace optiq::cli {
namespace {

using Relation = FlagRule::Relation;
using Line = std::vector<std::string>;

constexpr const char* kAbsent = "no-such-model"; // of models and other files

/** A value that the flag's own check takes. */
std::string sample_value(const CLI::Option& flag) {
  static const std::map<std::string, const char*> kValues{
      {"--protect", "on"},
      {"--tie", "on"},
      {"--shard", "1/2"},
      {"--file-bpw", "3:8:1"},
      {"--rounding", "nearest"},
      {"--kv-rotation", "hadamard"},
      {"--kv-group-size", "64"},
      {"--target-size", "1MB"},
      {"--progress", "none"},
      {"--lr-schedule", "linear"},
      {"--dropout", "0.5"},
      {"--max-seq-length", "64"},
      {"--compute", "exact"},
      {"--device", "cpu"},
      {"--reference-device", "cpu"},
      {"--host", "localhost"},
      {"--port", "0"},
      {"--log-format", "json"},
      {"--unix-socket", "flag_rules_test.socket"},
      {"--seq-len", "64"},
      {"--data", kAbsent},
      {"--reference", kAbsent},
      {"--kv-config", kAbsent},
      {"--plan", kAbsent}};
  if (const auto known = kValues.find(flag.get_name());
      known != kValues.end()) {
    return known->second;
  }
  for (const FlagRule& rule : flag_rules()) {
    if (flag.check_name(rule.partner) && !rule.values.empty()) {
      return rule.values.front();
    }
  }
  return "1";
}

/** What the program says of a command line whose model does not exist. */
std::string message_of(Line line) {
  std::vector<char*> argv{const_cast<char*>("optiq")};
  for (std::string& word : line) {
    argv.push_back(word.data());
  }
  const auto app = make_app();
  try {
    app->parse(static_cast<int>(argv.size()), argv.data());
  } catch (const Error& e) {
    return e.what();
  } catch (const CLI::ParseError& e) {
    return std::string("not parsed: ") + e.what();
  }
  return "accepted";
}

/** A value of the partner that is none of the rule's. */
std::string other_value(const FlagRule& rule) {
  if (std::string(rule.partner) == "--device") {
    return "mlx"; // one rule has this partner, and cpu
  }
  std::set<std::string> taken(rule.values.begin(), rule.values.end());
  for (const FlagRule& other : flag_rules()) {
    if (std::string(other.partner) == rule.partner) {
      for (const char* value : other.values) {
        if (!taken.contains(value)) {
          return value;
        }
      }
    }
  }
  ADD_FAILURE() << rule.partner << ": no value outside the rule is known";
  return "";
}

/** Flags of a command line, and their values. */
using Given = std::map<std::string, std::string>;

bool names_flag(const FlagRule& rule, const std::string& flag) {
  return std::find(rule.flags.begin(), rule.flags.end(), flag) !=
      rule.flags.end();
}

/** Gives the partners that the flag needs, but for those of the rule `broken`.
 */
void satisfy(
    const CLI::App& command,
    const std::string& flag,
    const FlagRule* broken,
    Given& given) {
  for (const FlagRule& rule : flag_rules()) {
    if (&rule == broken || rule.command != full_name(command) ||
        rule.relation != Relation::OnlyWith || !names_flag(rule, flag) ||
        given.contains(rule.partner)) {
      continue;
    }
    given[rule.partner] = sample_value(*command.get_option(rule.partner));
    if (!rule.values.empty()) {
      given[rule.partner] = rule.values.front();
    }
    satisfy(command, rule.partner, broken, given);
  }
  for (const FlagRule& rule : flag_rules()) {
    const bool asks = &rule != broken && rule.command == full_name(command) &&
        rule.relation == Relation::Needs && given.contains(rule.partner) &&
        (rule.values.empty() ||
         std::find(
             rule.values.begin(), rule.values.end(), given.at(rule.partner)) !=
             rule.values.end());
    if (asks && !given.contains(rule.flags.front())) {
      given[rule.flags.front()] =
          sample_value(*command.get_option(rule.flags.front()));
    }
  }
}

/** {"lora", "train"} of "lora train". */
Line words_of(const std::string& name) {
  std::istringstream stream(name);
  return {
      std::istream_iterator<std::string>(stream),
      std::istream_iterator<std::string>()};
}

/** Completes the flags by those that the command always needs. */
Line line_of(const CLI::App& command, const FlagRule* broken, Given given) {
  for (const CLI::Option* option : command.get_options()) {
    if (!option->get_required() || option->get_lnames().empty()) {
      continue;
    }
    const std::string name = "--" + option->get_lnames().front();
    if (!given.contains(name)) {
      given[name] = sample_value(*option);
      satisfy(command, name, broken, given);
    }
  }
  if (command.get_name() == "serve" && !given.contains("--unix-socket")) {
    given.try_emplace("--port", "0"); // its own may be in use
  }
  Line line = words_of(full_name(command));
  line.push_back(kAbsent);
  for (const auto& [flag, value] : given) {
    line.push_back(flag);
    if (command.get_option(flag)->get_items_expected_max() > 0) {
      line.push_back(value);
    }
  }
  return line;
}

/** A command line that breaks the rule with one of its flags, and, where that
 * can be, no other rule. */
Line breaking_line(
    const CLI::App& command,
    const FlagRule& rule,
    const std::string& flag) {
  const std::string value = rule.values.empty()
      ? sample_value(*command.get_option(rule.partner))
      : rule.values.front();
  Given given;
  if (rule.relation == Relation::Needs) {
    given[rule.partner] = value;
    satisfy(command, rule.partner, &rule, given);
    return line_of(command, &rule, given);
  }
  given[flag] = sample_value(*command.get_option(flag));
  if (rule.relation == Relation::NotWith) {
    given[rule.partner] = value;
    satisfy(command, rule.partner, &rule, given);
  } else if (!rule.values.empty()) {
    given[rule.partner] = other_value(rule);
    satisfy(command, rule.partner, &rule, given);
  }
  satisfy(command, flag, &rule, given);
  return line_of(command, &rule, given);
}

/** A command line that gives the flag with all that it needs. */
Line lawful_line(const CLI::App& command, const std::string& flag) {
  Given given{{flag, sample_value(*command.get_option(flag))}};
  satisfy(command, flag, nullptr, given);
  return line_of(command, nullptr, given);
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

const CLI::App& command_named(CLI::App& app, const std::string& name) {
  const auto commands = commands_of(app);
  return **std::find_if(
      commands.begin(), commands.end(), [&](const CLI::App* command) {
        return full_name(*command) == name;
      });
}

TEST(FlagRules, ABrokenRuleNamesBothFlags) {
  const auto app = make_app();
  for (const FlagRule& rule : flag_rules()) {
    const CLI::App& command = command_named(*app, rule.command);
    for (const std::string flag : rule.flags) {
      const Line line = breaking_line(command, rule, flag);
      const std::string message = message_of(line);
      SCOPED_TRACE(flag + ": " + message);
      EXPECT_TRUE(contains(message, std::string("[") + rule.command + "] --"));
      EXPECT_TRUE(contains(message, rule.partner));
      EXPECT_TRUE(contains(message, rule.reason));
      // Of several flags that break the rule the first one answers.
      EXPECT_TRUE(std::any_of(
          rule.flags.begin(), rule.flags.end(), [&](const char* name) {
            return contains(message, std::string("] ") + name + " ");
          }));
    }
  }
}

TEST(FlagRules, AFlagWithItsPartnersGetsAsFarAsTheModel) {
  const auto app = make_app();
  int walked = 0;
  for (const CLI::App* command : commands_of(*app)) {
    if (command->get_option_no_throw("--model") == nullptr) {
      continue; // doctor, list, pull, rm: nothing of theirs is coupled
    }
    for (const CLI::Option* option : command->get_options()) {
      if (option->get_group().empty()) { // there to be refused by name
        const std::string name = "--" + option->get_lnames().front();
        const auto message =
            message_of({command->get_name(), kAbsent, name, "x"});
        EXPECT_TRUE(contains(message, name + ": found one")) << message;
        continue;
      }
      const std::string name = option->get_name();
      const bool itself =
          name == "--help" || name == "--model" || name == "MODEL";
      if (itself || name == "--threads") {
        continue;
      }
      const std::string message = message_of(lawful_line(*command, name));
      SCOPED_TRACE(full_name(*command) + " " + name);
      EXPECT_TRUE(contains(message, kAbsent)) << message;
      ++walked;
    }
  }
  EXPECT_GT(walked, 60);
}

TEST(FlagRules, DefaultsCountAsPartners) {
  EXPECT_TRUE(contains(
      message_of({"convert", "no-such-model", "--bits", "4"}),
      "--bits goes only with --method uniform, found --method optiq"));
  EXPECT_TRUE(contains(
      message_of({"kv-cache", "no-such-model", "--kv-seed", "4"}),
      "--kv-seed goes only with --methods turbo, found --methods affine"));
  EXPECT_TRUE(contains(
      message_of(
          {"kv-cache",
           "no-such-model",
           "--methods",
           "affine,turbo",
           "--kv-seed",
           "4"}),
      "no-such-model"));
  EXPECT_TRUE(contains(
      message_of({"generate", "no-such-model", "--kv-method", "turbo"}),
      "--kv-method goes only with --kv-bits, found no --kv-bits"));
  EXPECT_TRUE(contains(
      message_of({"eval", "no-such-model", "--task", "kl", "--data", "x"}),
      "--reference is needed with --task kl"));
}

TEST(FlagRules, ThePageIsWhatTheProgramHas) {
  test::expect_page("docs/flags.md", describe_flags(*make_app()));
}

} // namespace
} // namespace optiq::cli
