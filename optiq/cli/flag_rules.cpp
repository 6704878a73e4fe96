#include "optiq/cli/flag_rules.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "optiq/base/error.h"

namespace optiq::cli {
namespace {

using Relation = FlagRule::Relation;

// In the order of Relation.
constexpr const char* kVerbs[] = {
    "goes only with",
    "does not go with",
    "is needed with"};
constexpr const char* kLabels[] = {"only with", "not with", "needed with"};

const std::vector<const char*> kAnswering{"exact-match", "needle"};
const std::vector<const char*> kReadingText{"kl", "ppl", "exact-match"};
// What looks at the calibration text whatever the method.
const std::vector<FlagRule::Exception> kCalibrated{
    {"--rounding", {"search", "gptq"}},
    {"--tune-steps"}};

const FlagRule kConvertRules[] = {
    {"convert",
     {"--bits"},
     Relation::OnlyWith,
     "--method",
     {"uniform"},
     "optiq",
     "the widths of the other methods are --candidate-bits"},
    {"convert",
     {"--candidate-bits",
      "--protect",
      "--tie",
      "--target-bpw",
      "--target-file-bpw",
      "--target-size"},
     Relation::NotWith,
     "--method",
     {"uniform"},
     "optiq",
     "its one width is --bits"},
    {"convert",
     {"--target-kl",
      "--sensitivity",
      "--measure-budget",
      "--time-budget",
      "--shard"},
     Relation::OnlyWith,
     "--method",
     {"optiq"},
     "optiq",
     "the other methods measure nothing"},
    {"convert",
     {"--calibration", "--n-calibration", "--seed", "--device"},
     Relation::OnlyWith,
     "--method",
     {"optiq"},
     "optiq",
     "the other methods measure nothing",
     kCalibrated},
    {"convert",
     {"--calibration", "--n-calibration", "--seed", "--device"},
     Relation::NotWith,
     "--plan",
     {},
     nullptr,
     "the plan decides it, and nothing is measured",
     kCalibrated},
    {"convert",
     {"--max-ram"},
     Relation::OnlyWith,
     "--device",
     {"cpu"},
     "cpu",
     "only the CPU's weights stay in their files"},
    {"convert",
     {"--measure-budget", "--time-budget"},
     Relation::NotWith,
     "--sensitivity",
     {"fast", "exact"},
     "auto",
     "it limits what auto measures"},
    {"convert",
     {"--time-budget"},
     Relation::NotWith,
     "--measure-budget",
     {},
     nullptr,
     "both say how much auto measures"},
    {"convert",
     {"--method",
      "--bits",
      "--candidate-bits",
      "--group-size",
      "--protect",
      "--tie",
      "--target-bpw",
      "--target-file-bpw",
      "--target-size",
      "--target-kl",
      "--sensitivity",
      "--measure-budget",
      "--time-budget",
      "--shard"},
     Relation::NotWith,
     "--plan",
     {},
     nullptr,
     "the plan decides it, and nothing is measured"},
    {"convert",
     {"--output",
      "--overwrite",
      "--dry-run",
      "--save-plan",
      "--tune-steps",
      "--measure-budget",
      "--time-budget"},
     Relation::NotWith,
     "--shard",
     {},
     nullptr,
     "a share is measured, nothing is chosen or written"},
    {"convert",
     {"--target-bpw"},
     Relation::NotWith,
     "--target-size",
     {},
     nullptr,
     "a plan has one target"},
    {"convert",
     {"--target-bpw", "--target-size"},
     Relation::NotWith,
     "--target-file-bpw",
     {},
     nullptr,
     "a plan has one target"},
    {"convert",
     {"--target-bpw", "--target-file-bpw", "--target-size"},
     Relation::NotWith,
     "--target-kl",
     {},
     nullptr,
     "a plan has one target"},
};

const FlagRule kSweepRules[] = {
    {"sweep",
     {"--measure-budget", "--time-budget"},
     Relation::NotWith,
     "--sensitivity",
     {"fast", "exact"},
     "auto",
     "it limits what auto measures"},
    {"sweep",
     {"--time-budget"},
     Relation::NotWith,
     "--measure-budget",
     {},
     nullptr,
     "both say how much auto measures"},
};

const FlagRule kKvCacheRules[] = {
    {"kv-cache",
     {"--target-bits"},
     Relation::NotWith,
     "--target-bytes-per-token",
     {},
     nullptr,
     "a plan has one target"},
    {"kv-cache",
     {"--kv-rotation", "--kv-seed"},
     Relation::OnlyWith,
     "--methods",
     {"turbo"},
     "affine",
     "affine rotates nothing"},
    {"kv-cache",
     {"--group-size"},
     Relation::OnlyWith,
     "--methods",
     {"affine"},
     "affine",
     "turbo has no groups"},
};

const FlagRule kGenerateRules[] = {
    {"generate",
     {"--system"},
     Relation::NotWith,
     "--raw",
     {},
     nullptr,
     "it goes through the chat template, which --raw does without"},
};

const FlagRule kServeRules[] = {
    {"serve",
     {"--host", "--port"},
     Relation::NotWith,
     "--unix-socket",
     {},
     nullptr,
     "the path is the address"},
    {"serve",
     {"--adapter", "--adapters-root"},
     Relation::Needs,
     "--adapter-memory",
     {},
     nullptr,
     "it is the memory of what they mount"},
};

const FlagRule kLoraRules[] = {
    {"lora train",
     {"--overwrite"},
     Relation::NotWith,
     "--resume",
     {},
     nullptr,
     "one goes on from what the other replaces"},
    {"lora train",
     {"--epochs"},
     Relation::NotWith,
     "--iters",
     {},
     nullptr,
     "both say when to stop"},
    {"lora train",
     {"--alpha", "--rslora"},
     Relation::NotWith,
     "--scale",
     {},
     nullptr,
     "it is the factor of every module"},
    {"lora train",
     {"--budget-match"},
     Relation::NotWith,
     "--rank-scaling",
     {"constant"},
     "by_bits",
     "constant ranks are the budget"},
    {"lora train",
     {"--all-turns", "--no-mask-prompt"},
     Relation::NotWith,
     "--mask-prompt",
     {},
     nullptr,
     "each says which tokens are learned"},
    {"lora train",
     {"--all-turns"},
     Relation::NotWith,
     "--no-mask-prompt",
     {},
     nullptr,
     "each says which tokens are learned"},
};

const FlagRule kEvalRules[] = {
    {"eval",
     {"--reference"},
     Relation::OnlyWith,
     "--task",
     {"kl"},
     nullptr,
     "nothing else compares two models"},
    {"eval",
     {"--reference"},
     Relation::Needs,
     "--task",
     {"kl"},
     nullptr,
     "it is what the model is compared with"},
    {"eval",
     {"--reference-device"},
     Relation::OnlyWith,
     "--task",
     {"kl"},
     nullptr,
     "the other tasks have no reference"},
    {"eval",
     {"--data", "--limit"},
     Relation::OnlyWith,
     "--task",
     kReadingText,
     nullptr,
     "needle makes its own texts, --trials of each length and depth"},
    {"eval",
     {"--data"},
     Relation::Needs,
     "--task",
     kReadingText,
     nullptr,
     "it is the text to measure on"},
    {"eval",
     {"--max-tokens", "--batch"},
     Relation::OnlyWith,
     "--task",
     kAnswering,
     nullptr,
     "the other tasks read texts and answer nothing"},
    {"eval",
     {"--seq-len"},
     Relation::OnlyWith,
     "--task",
     {"kl", "ppl"},
     nullptr,
     "questions are not cut into chunks"},
    {"eval",
     {"--lengths", "--depths", "--trials", "--facts", "--seed", "--raw"},
     Relation::OnlyWith,
     "--task",
     {"needle"},
     nullptr,
     "the other tasks take their texts from --data"},
};

/** The K/V flags of all commands that run a model. */
std::vector<FlagRule> kv_rules(const char* command) {
  return {
      {command,
       {"--kv-bits",
        "--kv-method",
        "--kv-rotation",
        "--kv-seed",
        "--kv-group-size"},
       Relation::NotWith,
       "--kv-config",
       {},
       nullptr,
       "the file says everything about the cache"},
      {command,
       {"--kv-method", "--kv-rotation", "--kv-seed", "--kv-group-size"},
       Relation::OnlyWith,
       "--kv-bits",
       {},
       nullptr,
       "without a width nothing is quantized"},
      {command,
       {"--kv-rotation", "--kv-seed"},
       Relation::OnlyWith,
       "--kv-method",
       {"turbo"},
       "affine",
       "affine rotates nothing"},
      {command,
       {"--kv-group-size"},
       Relation::OnlyWith,
       "--kv-method",
       {"affine"},
       "affine",
       "turbo has no groups"},
  };
}

std::vector<FlagRule> collect_rules() {
  std::vector<FlagRule> rules;
  const auto add = [&](const auto& more) {
    rules.insert(rules.end(), std::begin(more), std::end(more));
  };
  add(kConvertRules);
  add(kSweepRules);
  add(kKvCacheRules);
  add(kGenerateRules);
  add(kServeRules);
  add(kLoraRules);
  add(kEvalRules);
  for (const char* command : {"generate", "serve", "chat", "eval", "bench"}) {
    add(kv_rules(command));
  }
  return rules;
}

bool is_given(const CLI::App& command, const char* flag) {
  return command.get_option(flag)->count() > 0;
}

/** What the command line, or the default, says of the partner. */
std::vector<std::string> values_of(
    const CLI::App& command,
    const FlagRule& rule) {
  if (is_given(command, rule.partner)) {
    return command.get_option(rule.partner)->results();
  }
  if (rule.partner_default == nullptr) {
    return {};
  }
  return {rule.partner_default};
}

/** "--method uniform", "--task kl or ppl", "--plan". */
std::string describe(const char* flag, const std::vector<const char*>& values) {
  return values.empty() ? flag
                        : fmt::format("{} {}", flag, fmt::join(values, " or "));
}

std::string describe_partner(const FlagRule& rule) {
  return describe(rule.partner, rule.values);
}

/** The same, and where the rule does not hold: "--method optiq or --rounding
 * gptq", "--plan without --rounding gptq". */
std::string describe_partners(const FlagRule& rule) {
  std::string text = describe_partner(rule);
  const char* joint =
      rule.relation == Relation::OnlyWith ? " or " : " without ";
  for (const FlagRule::Exception& exception : rule.exceptions) {
    text += joint + describe(exception.flag, exception.values);
    joint = " or ";
  }
  return text;
}

bool is_excepted(const CLI::App& command, const FlagRule& rule) {
  return std::any_of(
      rule.exceptions.begin(),
      rule.exceptions.end(),
      [&](const FlagRule::Exception& exception) {
        if (!is_given(command, exception.flag)) {
          return false;
        }
        const auto& values = exception.values;
        return values.empty() ||
            std::find(
                values.begin(),
                values.end(),
                command.get_option(exception.flag)->results().front()) !=
            values.end();
      });
}

bool holds(const CLI::App& command, const FlagRule& rule) {
  const std::vector<std::string> found = values_of(command, rule);
  return rule.values.empty()
      ? !found.empty()
      : std::any_of(found.begin(), found.end(), [&](const std::string& value) {
          return std::find(rule.values.begin(), rule.values.end(), value) !=
              rule.values.end();
        });
}

/** ", found --task ppl", ", found no --kv-bits"; empty where it is the rule's.
 */
std::string describe_found(const CLI::App& command, const FlagRule& rule) {
  if (rule.relation != Relation::OnlyWith) {
    return "";
  }
  const std::vector<std::string> found = values_of(command, rule);
  return found.empty()
      ? fmt::format(", found no {}", rule.partner)
      : fmt::format(", found {} {}", rule.partner, fmt::join(found, ","));
}

[[noreturn]] void
refuse(const CLI::App& command, const FlagRule& rule, const char* flag) {
  fail(
      ErrorKind::InvalidInput,
      "[{}] {} {} {}{}: {}",
      rule.command,
      flag,
      kVerbs[static_cast<int>(rule.relation)],
      describe_partners(rule),
      describe_found(command, rule),
      rule.reason);
}

/** The visible flags of a command: "-o,--output", "MODEL". */
std::vector<const CLI::Option*> options_of(const CLI::App& command) {
  std::vector<const CLI::Option*> options;
  for (const CLI::Option* option : command.get_options()) {
    if (option->get_name() != "--help" && !option->get_group().empty()) {
      options.push_back(option);
    }
  }
  return options;
}

/** "only with --kv-bits; not with --kv-config", of one flag. */
std::string partners_of(const std::string& command, const CLI::Option& flag) {
  std::vector<std::string> parts;
  for (const FlagRule& rule : flag_rules()) {
    const bool concerns = command == rule.command &&
        std::any_of(rule.flags.begin(),
                    rule.flags.end(),
                    [&](const char* name) { return flag.check_name(name); });
    if (concerns) {
      parts.push_back(fmt::format(
          "{} `{}`",
          kLabels[static_cast<int>(rule.relation)],
          describe_partners(rule)));
    }
  }
  return fmt::format("{}", fmt::join(parts, "; "));
}

} // namespace

std::vector<CLI::App*> commands_of(CLI::App& app) {
  std::vector<CLI::App*> commands;
  for (CLI::App* command : app.get_subcommands({})) {
    const auto own = commands_of(*command);
    commands.insert(commands.end(), own.begin(), own.end());
    if (own.empty()) {
      commands.push_back(command);
    }
  }
  return commands;
}

std::string full_name(const CLI::App& command) {
  const CLI::App* parent = command.get_parent();
  return parent == nullptr || parent->get_parent() == nullptr
      ? command.get_name()
      : full_name(*parent) + " " + command.get_name();
}

std::span<const FlagRule> flag_rules() {
  static const std::vector<FlagRule> kRules = collect_rules();
  return kRules;
}

void check_flag_rules(const CLI::App& command) {
  for (const FlagRule& rule : flag_rules()) {
    if (full_name(command) != rule.command) {
      continue;
    }
    if (rule.relation == Relation::Needs) {
      const bool given = std::any_of(
          rule.flags.begin(), rule.flags.end(), [&](const char* flag) {
            return is_given(command, flag);
          });
      if (!given && holds(command, rule)) {
        refuse(command, rule, rule.flags.front());
      }
      continue;
    }
    const bool wanted = rule.relation == Relation::OnlyWith;
    for (const char* flag : rule.flags) {
      if (is_given(command, flag) && holds(command, rule) != wanted &&
          !is_excepted(command, rule)) {
        refuse(command, rule, flag);
      }
    }
  }
}

std::string describe_flags(CLI::App& app) {
  std::string text =
      "# Flags\n\n"
      "Every flag of every command, and which others it goes with; a command "
      "line that breaks a row is refused\nwith a sentence that names both "
      "flags. Made from the program: `tests/cli/flag_rules_test.cpp` compares.\n";
  for (const CLI::App* command : commands_of(app)) {
    text += fmt::format(
        "\n## optiq {}\n\n| flag | partners |\n|---|---|\n",
        full_name(*command));
    for (const CLI::Option* option : options_of(*command)) {
      text += fmt::format(
          "| `{}` | {} |\n",
          option->get_name(false, true),
          partners_of(full_name(*command), *option));
    }
  }
  return text;
}

} // namespace optiq::cli
