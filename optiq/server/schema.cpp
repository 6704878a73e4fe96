#include "optiq/server/schema.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <fmt/format.h>

#include "optiq/server/request_error.h"

namespace optiq::server {
namespace {

using artifacts::Json;
using Kind = Schema::Kind;

constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();

/** Why a value is not what it should be. */
struct Problem {
  std::string path; // from the request: "messages[0].content"
  std::string found;
  std::string expected;
  const char* code;
};

using Found = std::optional<Problem>;

Found find_problem(
    const Json& value,
    const Schema& schema,
    const std::string& path);

Schema numeric(Kind kind, double minimum, double maximum) {
  Schema schema{.kind = kind};
  schema.minimum = minimum;
  schema.maximum = maximum;
  return schema;
}

std::string plural(std::size_t n, const char* unit) {
  return fmt::format("{} {}{}", n, unit, n == 1 ? "" : "s");
}

/** " of 1 to 4 items". */
std::string describe_size(const Schema& schema, const char* unit) {
  const bool has_most = schema.max_size != kNoLimit;
  if (schema.min_size == 0 && !has_most) {
    return "";
  }
  if (!has_most) {
    return fmt::format(" of at least {}", plural(schema.min_size, unit));
  }
  return schema.min_size == 0
      ? fmt::format(" of at most {}", plural(schema.max_size, unit))
      : fmt::format(
            " of {} to {}", schema.min_size, plural(schema.max_size, unit));
}

Json bound(const Schema& schema, double value) {
  if (schema.kind != Kind::Integer) {
    return value;
  }
  // 2^63 is no int64; the largest one below it is what is meant.
  return value >= 0x1p63 ? std::numeric_limits<std::int64_t>::max()
                         : static_cast<std::int64_t>(value);
}

std::string describe_bound(const Schema& schema, double value) {
  return schema.kind == Kind::Integer ? bound(schema, value).dump()
                                      : fmt::format("{}", value);
}

/** " from 0 to 2", " above 0 and at most 1". */
std::string describe_range(const Schema& schema) {
  const std::string least = describe_bound(schema, *schema.minimum);
  const std::string most = describe_bound(schema, *schema.maximum);
  if (schema.above_minimum) {
    return fmt::format(" above {} and at most {}", least, most);
  }
  if (schema.below_maximum) {
    return fmt::format(" of at least {} and below {}", least, most);
  }
  return fmt::format(" from {} to {}", least, most);
}

std::string join_with_or(const std::vector<std::string>& parts) {
  std::string text = parts.front();
  for (std::size_t i = 1; i < parts.size(); ++i) {
    text += (i + 1 == parts.size() ? " or " : ", ") + parts[i];
  }
  return text;
}

std::string describe_values(const Schema& schema) {
  std::vector<std::string> parts;
  for (const Json& value : schema.values) {
    parts.push_back(value.dump());
  }
  const std::string text = parts.empty() ? "null" : join_with_or(parts);
  return schema.others_are_unsupported
      ? text + ": anything else is not supported yet"
      : text;
}

bool is_in_range(double value, const Schema& schema) {
  const bool is_enough =
      schema.above_minimum ? value > *schema.minimum : value >= *schema.minimum;
  const bool is_too_much =
      schema.below_maximum ? value >= *schema.maximum : value > *schema.maximum;
  return is_enough && !is_too_much;
}

/** As it is read: numbers become floats, and 1e-300 is 0 then. */
double rounded(const Json& value, Kind kind) {
  return kind == Kind::Number ? double{value.get<float>()}
                              : value.get<double>();
}

/** Whether a number is an integer of 64 bits, however it is written. */
bool is_integer(const Json& value) {
  if (value.is_number_unsigned()) {
    return std::in_range<std::int64_t>(value.get<std::uint64_t>());
  }
  if (value.is_number_float()) {
    const double number = value.get<double>();
    return std::rint(number) == number && std::abs(number) < 0x1p63;
  }
  return value.is_number_integer();
}

bool has_type(const Json& value, Kind kind) {
  switch (kind) {
    case Kind::Boolean:
      return value.is_boolean();
    case Kind::Integer:
      return is_integer(value);
    case Kind::Number:
      return value.is_number();
    case Kind::String:
      return value.is_string();
    case Kind::List:
      return value.is_array();
    case Kind::Object:
      return value.is_object();
    case Kind::Any:
    case Kind::Values:
    case Kind::Choice:
      break;
  }
  return true;
}

std::size_t size_of(const Json& value) {
  return value.is_string() ? value.get_ref<const std::string&>().size()
                           : value.size();
}

std::string found_size(const Json& value) {
  return value.is_string() ? fmt::format("a string of {} bytes", size_of(value))
      : value.is_array()   ? fmt::format("a list of {} items", value.size())
                         : fmt::format("an object of {} members", value.size());
}

Found find_in_list(
    const Json& value,
    const Schema& schema,
    const std::string& path) {
  for (std::size_t i = 0; i < value.size(); ++i) {
    // The path is made where it is needed: a prompt may have 100,000 ids.
    if (auto problem =
            find_problem(value[i], schema.alternatives.front(), "")) {
      problem->path = fmt::format("{}[{}]{}", path, i, problem->path);
      return problem;
    }
  }
  return std::nullopt;
}

std::string member_path(const std::string& path, const std::string& name) {
  return path + "." + name;
}

Found find_in_object(
    const Json& value,
    const Schema& schema,
    const std::string& path) {
  for (const Member& member : schema.members) {
    const auto found = value.find(member.name);
    const bool is_absent = found == value.end() || found->is_null();
    if (is_absent && !member.required) {
      continue;
    }
    if (is_absent) {
      return Problem{
          member_path(path, member.name),
          "nothing",
          describe(member.schema),
          "missing_required_parameter"};
    }
    if (auto problem = find_problem(
            *found, member.schema, member_path(path, member.name))) {
      return problem;
    }
  }
  if (!schema.any_member.empty()) {
    for (const auto& [name, item] : value.items()) {
      if (auto problem = find_problem(
              item, schema.any_member.front(), member_path(path, name))) {
        return problem;
      }
    }
  }
  return std::nullopt;
}

/** The problem of the alternative that is meant: the one of the value's type,
 * where there is only one. */
Found find_in_choice(
    const Json& value,
    const Schema& schema,
    const std::string& path) {
  std::vector<Problem> of_its_type;
  for (const Schema& alternative : schema.alternatives) {
    auto problem = find_problem(value, alternative, path);
    if (!problem) {
      return std::nullopt;
    }
    if (has_type(value, alternative.kind)) {
      of_its_type.push_back(std::move(*problem));
    }
  }
  if (of_its_type.size() == 1) {
    return of_its_type.front();
  }
  return Problem{
      path,
      artifacts::describe(value),
      describe(schema),
      of_its_type.empty() ? "invalid_type" : "invalid_value"};
}

Found find_problem(
    const Json& value,
    const Schema& schema,
    const std::string& path) {
  const auto problem = [&](std::string found, const char* code) {
    return Problem{path, std::move(found), describe(schema), code};
  };
  if (!has_type(value, schema.kind)) {
    return problem(artifacts::describe(value), "invalid_type");
  }
  switch (schema.kind) {
    case Kind::Any:
    case Kind::Boolean:
      return std::nullopt;
    case Kind::Integer:
    case Kind::Number:
      if (!is_in_range(value.get<double>(), schema) ||
          !is_in_range(rounded(value, schema.kind), schema)) {
        return problem(artifacts::describe(value), "invalid_value");
      }
      return std::nullopt;
    case Kind::Values:
      if (std::find(schema.values.begin(), schema.values.end(), value) ==
          schema.values.end()) {
        return problem(
            artifacts::describe(value),
            schema.others_are_unsupported ? "unsupported_parameter"
                                          : "invalid_value");
      }
      return std::nullopt;
    case Kind::Choice:
      return find_in_choice(value, schema, path);
    case Kind::String:
    case Kind::List:
    case Kind::Object:
      break;
  }
  const std::size_t size = size_of(value);
  if (size < schema.min_size || size > schema.max_size) {
    return problem(found_size(value), "invalid_value");
  }
  if (schema.kind == Kind::List) {
    return find_in_list(value, schema, path);
  }
  return schema.kind == Kind::Object ? find_in_object(value, schema, path)
                                     : std::nullopt;
}

void add_range(Json& to, const Schema& schema) {
  to[schema.above_minimum ? "exclusiveMinimum" : "minimum"] =
      bound(schema, *schema.minimum);
  to[schema.below_maximum ? "exclusiveMaximum" : "maximum"] =
      bound(schema, *schema.maximum);
}

/** "minItems" and the like. Lengths of strings are characters there and bytes
 * here: no string of more characters fits. */
void add_size(Json& to, const Schema& schema, const std::string& unit) {
  if (schema.min_size > 0) {
    to["min" + unit] = schema.min_size;
  }
  if (schema.max_size != kNoLimit) {
    to["max" + unit] = schema.max_size;
  }
}

/** The same, null allowed: of a member that may be absent. */
Json nullable(Json schema) {
  const auto type = schema.find("type");
  if (type != schema.end()) {
    *type = Json::array({*type, "null"});
  } else if (schema.contains("enum")) {
    schema["enum"].push_back(nullptr);
  } else if (schema.contains("anyOf")) {
    schema["anyOf"].push_back({{"type", "null"}});
  }
  return schema;
}

Json object_schema(const Schema& schema) {
  Json made{{"type", "object"}};
  add_size(made, schema, "Properties");
  Json properties = Json::object();
  Json required = Json::array();
  for (const Member& member : schema.members) {
    Json of_member = json_schema(member.schema);
    if (member.required) {
      required.push_back(member.name);
    } else {
      of_member = nullable(std::move(of_member));
    }
    if (member.schema.others_are_unsupported) {
      of_member["description"] = "Other values are not supported yet.";
    } else if (!member.description.empty()) {
      of_member["description"] = member.description;
    }
    properties[member.name] = std::move(of_member);
  }
  if (!properties.empty()) {
    made["properties"] = std::move(properties);
  }
  if (!required.empty()) {
    made["required"] = std::move(required);
  }
  if (!schema.any_member.empty()) {
    made["additionalProperties"] = json_schema(schema.any_member.front());
  }
  return made;
}

} // namespace

Schema any() {
  return {};
}

Schema boolean() {
  return {.kind = Kind::Boolean};
}

Schema integer(double minimum, double maximum) {
  return numeric(Kind::Integer, minimum, maximum);
}

Schema number(double minimum, double maximum) {
  return numeric(Kind::Number, minimum, maximum);
}

Schema number_above(double minimum, double maximum) {
  Schema schema = number(minimum, maximum);
  schema.above_minimum = true;
  return schema;
}

Schema number_below(double minimum, double maximum) {
  Schema schema = number(minimum, maximum);
  schema.below_maximum = true;
  return schema;
}

Schema string(std::size_t min_bytes, std::size_t max_bytes) {
  Schema schema{.kind = Kind::String};
  schema.min_size = min_bytes;
  schema.max_size = max_bytes;
  return schema;
}

Schema one_of(std::vector<Json> values) {
  Schema schema{.kind = Kind::Values};
  schema.values = std::move(values);
  return schema;
}

Schema unsupported_but(std::vector<Json> neutral) {
  Schema schema = one_of(std::move(neutral));
  schema.others_are_unsupported = true;
  return schema;
}

Schema list(Schema item, std::size_t min_items, std::size_t max_items) {
  Schema schema{.kind = Kind::List};
  schema.alternatives = {std::move(item)};
  schema.min_size = min_items;
  schema.max_size = max_items;
  return schema;
}

Schema object(std::vector<Member> members) {
  Schema schema{.kind = Kind::Object};
  schema.members = std::move(members);
  return schema;
}

Schema map(Schema value, std::size_t max_members) {
  Schema schema{.kind = Kind::Object};
  schema.any_member = {std::move(value)};
  schema.max_size = max_members;
  return schema;
}

Schema either(std::vector<Schema> alternatives) {
  Schema schema{.kind = Kind::Choice};
  schema.alternatives = std::move(alternatives);
  return schema;
}

std::string describe(const Schema& schema) {
  switch (schema.kind) {
    case Kind::Any:
      return "any value";
    case Kind::Boolean:
      return "true or false";
    case Kind::Integer:
      return "an integer" + describe_range(schema);
    case Kind::Number:
      return "a number" + describe_range(schema);
    case Kind::String:
      return "a string" + describe_size(schema, "byte");
    case Kind::Values:
      return describe_values(schema);
    case Kind::List:
      return fmt::format(
          "a list{}, each {}",
          describe_size(schema, "item"),
          describe(schema.alternatives.front()));
    case Kind::Object:
      return "an object" + describe_size(schema, "member");
    case Kind::Choice:
      break;
  }
  std::vector<std::string> parts;
  for (const Schema& alternative : schema.alternatives) {
    parts.push_back(describe(alternative));
  }
  return join_with_or(parts);
}

void check(const Json& value, const Schema& schema, const std::string& where) {
  const auto problem = find_problem(value, schema, "");
  if (!problem) {
    return;
  }
  // Paths of members begin with their dot.
  const std::string path = problem->path.empty() ? "" : problem->path.substr(1);
  refuse_field(
      path,
      problem->code,
      fmt::format(
          "[{}] {}: found {}, expected {}",
          where,
          path.empty() ? "the body" : path,
          problem->found,
          problem->expected));
}

Json json_schema(const Schema& schema) {
  switch (schema.kind) {
    case Kind::Any:
      return Json::object();
    case Kind::Boolean:
      return {{"type", "boolean"}};
    case Kind::Integer:
    case Kind::Number: {
      Json made{{"type", schema.kind == Kind::Integer ? "integer" : "number"}};
      add_range(made, schema);
      return made;
    }
    case Kind::String: {
      Json made{{"type", "string"}};
      add_size(made, schema, "Length");
      return made;
    }
    case Kind::Values:
      return {{"enum", schema.values}};
    case Kind::List: {
      Json made{
          {"type", "array"},
          {"items", json_schema(schema.alternatives.front())}};
      add_size(made, schema, "Items");
      return made;
    }
    case Kind::Object:
      return object_schema(schema);
    case Kind::Choice:
      break;
  }
  Json made{{"anyOf", Json::array()}};
  for (const Schema& alternative : schema.alternatives) {
    made["anyOf"].push_back(json_schema(alternative));
  }
  return made;
}

} // namespace optiq::server
