#include "optiq/cli/client_lines.h"

#include <fmt/format.h>

#include "optiq/artifacts/json.h"

namespace optiq::cli {
namespace {

/** As one word of a POSIX shell. */
std::string shell_quoted(const std::string& text) {
  std::string quoted = "'";
  for (const char c : text) {
    quoted += c == '\'' ? "'\\''" : std::string(1, c);
  }
  return quoted + "'";
}

/** JSON's strings are Python's, too. */
std::string quoted(const std::string& text) {
  std::string line = artifacts::dump_json(text, -1);
  line.pop_back(); // the newline
  return line;
}

std::string curl_line(const ServedAddress& address, const std::string& body) {
  std::string line = "curl ";
  if (!address.unix_socket.empty()) {
    line += fmt::format("--unix-socket {} ", shell_quoted(address.unix_socket));
  }
  line += fmt::format("{}/v1/chat/completions ", base_url(address));
  if (address.needs_key) {
    line += "-H \"Authorization: Bearer $OPTIQ_API_KEY\" ";
  }
  return line + "-H 'Content-Type: application/json' -d " + shell_quoted(body);
}

std::string python_line(
    const ServedAddress& address,
    const std::string& model_id) {
  const std::string program = fmt::format(
      "{}from openai import OpenAI; client = OpenAI(base_url={}, api_key={}); "
      "print(client.chat.completions.create(model={}, "
      "messages=[{{\"role\": \"user\", \"content\": \"Hello\"}}])"
      ".choices[0].message.content)",
      address.needs_key ? "import os; " : "",
      quoted(base_url(address) + "/v1"),
      address.needs_key ? "os.environ[\"OPTIQ_API_KEY\"]" : "\"none\"",
      quoted(model_id));
  return "python3 -c " + shell_quoted(program);
}

} // namespace

std::string base_url(const ServedAddress& address) {
  if (!address.unix_socket.empty()) {
    return "http://localhost";
  }
  std::string host = address.host;
  if (host == "0.0.0.0" || host == "::") {
    host = "127.0.0.1"; // every address: also this one
  } else if (host.find(':') != std::string::npos) {
    host = "[" + host + "]";
  }
  return fmt::format("http://{}:{}", host, address.port);
}

std::string client_lines(
    const ServedAddress& address,
    const std::string& model_id) {
  const artifacts::Json body{
      {"model", model_id},
      {"messages", {{{"role", "user"}, {"content", "Hello"}}}}};
  std::string text_of_body = artifacts::dump_json(body, -1);
  text_of_body.pop_back(); // the newline
  std::string lines = curl_line(address, text_of_body) + "\n";
  if (address.unix_socket.empty()) { // the others take a URL
    lines += python_line(address, model_id) + "\n";
    lines += fmt::format("optiq chat {}\n", base_url(address));
  }
  return lines;
}

} // namespace optiq::cli
