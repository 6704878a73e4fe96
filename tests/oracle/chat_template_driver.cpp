// Renders chat templates for the oracle scripts: one JSON object a line,
// {"template", "variables"} in, {"text"} or {"error", "kind"} out. With
// --names: the names of all builtins, {"filter": [...], "test": [...], ...}.
#include <chrono>
#include <exception>
#include <iostream>
#include <string>

#include "text/builtin_tables.h"

#include "optiq/artifacts/json.h"
#include "optiq/base/error.h"
#include "optiq/text/chat_template.h"

namespace {

optiq::artifacts::Json answer(const optiq::artifacts::Json& request) {
  using optiq::text::ChatTemplate;
  try {
    const auto parsed = ChatTemplate::parse(
        request.at("template").get<std::string>(), "oracle.jinja");
    // The judge has no clock, and a sanitizer slows this side down.
    const std::string text = parsed.render(
        request.at("variables"), {.wall = std::chrono::minutes(1)});
    return {{"text", text}};
  } catch (const optiq::Error& error) {
    return {{"error", error.what()}, {"kind", optiq::name_of(error.kind())}};
  }
}

optiq::artifacts::Json names() {
  optiq::artifacts::Json all = optiq::artifacts::Json::object();
  for (const auto& [kind, table] : optiq::text::jinja::builtin_tables()) {
    all[kind] = optiq::artifacts::Json::array();
    for (const auto& [name, builtin] : table->rows()) {
      all[kind].push_back(name);
    }
  }
  return all;
}

} // namespace

int main(int argc, char** argv) {
  try {
    if (argc > 1 && std::string(argv[1]) == "--names") {
      std::cout << names().dump() << '\n';
      return 0;
    }
    for (std::string line; std::getline(std::cin, line);) {
      const auto request = optiq::artifacts::parse_json(line, "stdin");
      std::cout << answer(request).dump() << '\n';
    }
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
