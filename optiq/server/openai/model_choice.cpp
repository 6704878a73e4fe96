#include <algorithm>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "optiq/server/openai/model_choice_impl.h"
#include "optiq/server/request_error.h"

namespace optiq::server::openai {
namespace {

constexpr const char* kDefaultName = "default";

/** A selection of adapters, and the field that it was in. */
struct NamedSelection {
  std::string selection; // empty: the model alone
  const char* param = "adapter";
};

/** What stands behind the model's name and ':'; nothing without. */
std::string selection_in_name(
    const ServiceState& state,
    const std::string& name) {
  for (const std::string& known : {state.model.id, std::string(kDefaultName)}) {
    if (name == known) {
      return "";
    }
    if (name.starts_with(known + ":") && name.size() > known.size() + 1) {
      return name.substr(known.size() + 1);
    }
  }
  refuse_model(state, name);
}

NamedSelection find_selection(
    const ServiceState& state,
    const AnswerFields& fields) {
  const std::string in_name =
      fields.model ? selection_in_name(state, *fields.model) : "";
  if (!fields.adapter) {
    return {in_name, "model"};
  }
  if (!in_name.empty()) {
    refuse_field(
        fields.adapter_field,
        "invalid_value",
        fmt::format(
            "[{0}] found adapters in {0} and in the model's name, expected "
            "them in one place",
            fields.adapter_field));
  }
  return {*fields.adapter, fields.adapter_field};
}

/** "a*0.5+b" -> a, b. */
std::vector<std::string> ids_in(std::string_view selection) {
  std::vector<std::string> ids;
  while (!selection.empty()) {
    const std::size_t end = std::min(selection.find('+'), selection.size());
    const std::string_view term = selection.substr(0, end);
    ids.emplace_back(term.substr(0, term.find('*')));
    selection.remove_prefix(std::min(end + 1, selection.size()));
  }
  return ids;
}

/** Each of them is read before their sum is made. */
void check_count(const NamedSelection& named, std::size_t n) {
  if (n > kMaxAdapters) {
    refuse_field(
        named.param,
        "invalid_value",
        fmt::format(
            "[{}] found {} adapters, expected at most {}",
            named.param,
            n,
            kMaxAdapters));
  }
}

std::shared_ptr<const nn::Adapter> find_adapter(
    ServiceState& state,
    const NamedSelection& named) {
  try {
    return state.adapters.find(named.selection);
  } catch (const Error& error) {
    ApiError refusal = api_error_of(std::current_exception());
    refusal.param = named.param;
    if (error.kind() == ErrorKind::NotFound) {
      refusal.code = std::string_view(named.param) == "model"
          ? "model_not_found"
          : "adapter_not_found";
    } else if (error.kind() == ErrorKind::Exhausted) {
      refusal.code = kAdapterMemoryFull;
    }
    throw RequestError(std::move(refusal));
  }
}

} // namespace

std::string name_with_adapter(
    const ServiceState& state,
    const std::string& selection) {
  return selection.empty() ? state.model.id : state.model.id + ":" + selection;
}

ModelChoice choose_model(ServiceState& state, const AnswerFields& fields) {
  const NamedSelection named = find_selection(state, fields);
  auto ids = ids_in(named.selection);
  check_count(named, ids.size());
  auto adapter = find_adapter(state, named);
  if (adapter == nullptr) {
    return {.name = state.model.id, .adapter = nullptr, .adapter_ids = {}};
  }
  return {
      .name = name_with_adapter(state, named.selection),
      .adapter = std::move(adapter),
      .adapter_ids = std::move(ids)};
}

void refuse_model(const ServiceState& state, const std::string& name) {
  throw RequestError(
      {.status = 404,
       .message = fmt::format(
           "[serve] found the model {}, expected '{}', the one that is served, "
           "alone or with an adapter behind it as in '{}:NAME' (adapters: {})",
           artifacts::describe(name),
           state.model.id,
           state.model.id,
           state.adapters.list()->names()),
       .code = "model_not_found",
       .param = "model"});
}

} // namespace optiq::server::openai
