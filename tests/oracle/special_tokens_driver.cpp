// What is special in model directories, for special_tokens.py.
//   special_tokens_driver keys     keys of generation_config.json, {name:
//   effect} special_tokens_driver          lines on stdin, {"folder", "texts",
//   "messages"},
//                                  each answered by a line
#include <exception>
#include <iostream>
#include <string>

#include "optiq/artifacts/json.h"
#include "optiq/base/error.h"
#include "optiq/generate/generation_config.h"
#include "optiq/text/chat_template.h"
#include "optiq/text/tokenizer.h"

namespace {

using optiq::artifacts::Json;
using optiq::text::ChatTemplate;
using optiq::text::Tokenizer;

Json answer(const Json& request) {
  const auto folder = request.at("folder").get<std::string>();
  const auto tokenizer = Tokenizer::load(folder);
  const ChatTemplate chat = ChatTemplate::load(folder);
  Json ids = Json::array();
  for (const Json& text : request.at("texts")) {
    for (const bool add : {false, true}) {
      ids.push_back(tokenizer->encode(text.get<std::string>(), add));
    }
  }
  Json roles = Json::object();
  for (const auto& [role, text] : chat.special_tokens().items()) {
    const auto id = tokenizer->token_to_id(text.get<std::string>());
    roles[role] = {text, id ? Json(*id) : Json(nullptr)};
  }
  Json special = Json::array();
  for (std::int32_t id = 0; id < tokenizer->vocab_size(); ++id) {
    if (tokenizer->is_special(id)) {
      special.push_back(id);
    }
  }
  return {
      {"ids", ids},
      {"roles", roles},
      {"special", special},
      {"chat",
       tokenizer->encode(
           chat.render_chat(request.at("messages"), true), false)}};
}

Json keys() {
  Json all = Json::object();
  for (const auto& key : optiq::generate::generation_keys()) {
    all[key.name] = static_cast<int>(key.effect);
  }
  return all;
}

} // namespace

int main(int argc, char**) {
  try {
    if (argc > 1) {
      std::cout << keys().dump() << '\n';
      return 0;
    }
    for (std::string line; std::getline(std::cin, line);) {
      const Json request = optiq::artifacts::parse_json(line, "stdin");
      try {
        std::cout << answer(request).dump() << '\n';
      } catch (const optiq::Error& error) {
        std::cout << Json{{"error", error.what()}}.dump() << '\n';
      }
    }
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
