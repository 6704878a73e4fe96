#include <utility>

#include <fmt/format.h>

#include "optiq/server/endpoints_impl.h"
#include "optiq/server/fields.h"
#include "optiq/server/request_body.h"
#include "optiq/server/request_error.h"

namespace optiq::server {
namespace {

using artifacts::Json;

constexpr std::size_t kMaxPath = 4096; // bytes

struct MountRequest {
  std::string path;
  std::string id;
};

const Fields<MountRequest>& mount_fields() {
  using R = MountRequest;
  static const Fields<R> fields{
      {{"path",
        string(1, kMaxPath),
        "The adapter's folder: one in the folder that the server was given as "
        "--adapters-root, from there on.",
        true},
       into(&R::path)},
      {{"id",
        string(1, kMaxAdapterId),
        "What requests call it: letters, digits and \"._-/\". Without it the "
        "folder's name."},
       into(&R::id)}};
  return fields;
}

Json adapter_json(const ServedAdapter& adapter) {
  const adapters::MountedAdapter& facts = adapter.facts;
  return {
      {"id", facts.id},
      {"object", "adapter"},
      {"created", adapter.created},
      {"path", adapter.path.empty() ? Json() : Json(adapter.path)},
      {"format", facts.format},
      {"base_model", facts.base_model},
      {"modules", facts.modules},
      {"least_rank", facts.least_rank},
      {"largest_rank", facts.largest_rank},
      {"parameters", facts.parameters},
      {"resident_bytes", facts.resident_bytes}};
}

Json mounted_json(const ServiceState& state, const std::string& id) {
  const auto list = state.adapters.list();
  const ServedAdapter* const adapter = list->find(id);
  if (adapter == nullptr) {
    throw RequestError(
        {.status = 404,
         .message = fmt::format(
             "[/v1/adapters] found no adapter {}, expected one of: {}",
             artifacts::describe(id),
             list->names()),
         .code = "adapter_not_found",
         .param = "id"});
  }
  return adapter_json(*adapter);
}

void check_new_id(const ServiceState& state, const std::string& id) {
  if (!adapters::is_adapter_id(id)) {
    refuse_field(
        "id",
        "invalid_value",
        fmt::format(
            "[/v1/adapters] id: found {}, expected letters, digits and "
            "\"._-/\", and not \"base\", which is the model alone",
            artifacts::describe(id)));
  }
  if (state.adapters.list()->find(id) != nullptr) {
    throw RequestError(
        {.status = 409,
         .message = fmt::format(
             "[/v1/adapters] id: found that '{}' is mounted, expected a new "
             "name. DELETE that one first, or choose another id",
             id),
         .code = "adapter_exists",
         .param = "id"});
  }
}

/** A folder that the client named, and that is no adapter of the model, is the
 * client's mistake, whatever is wrong with it. */
ApiError refusal_of_folder(const Error& error) {
  ApiError refusal = api_error_of(std::current_exception());
  refusal.param = "path";
  if (error.kind() == ErrorKind::Exhausted) {
    refusal.code = kAdapterMemoryFull;
  } else if (error.kind() != ErrorKind::Denied) {
    refusal.status = 400;
    refusal.code = "invalid_adapter";
  }
  return refusal;
}

/** Returns the id. */
std::string mount(ServiceState& state, const MountRequest& request) {
  try {
    const auto folder = state.adapters.folder_of(request.path);
    std::string id =
        request.id.empty() ? folder.filename().string() : request.id;
    check_new_id(state, id);
    state.adapters.mount(id, folder);
    return id;
  } catch (const RequestError&) {
    throw;
  } catch (const Error& error) {
    throw RequestError(refusal_of_folder(error));
  }
}

} // namespace

void list_adapters(ServiceState& state, Call& call) {
  Json data = Json::array();
  for (const ServedAdapter& adapter : state.adapters.list()->adapters) {
    data.push_back(adapter_json(adapter));
  }
  const Json list{{"object", "list"}, {"data", std::move(data)}};
  respond_json(call, list);
}

void show_adapter(ServiceState& state, Call& call) {
  respond_json(call, mounted_json(state, call.rest_of_path));
}

Schema mount_adapter_body() {
  return schema_of(mount_fields());
}

void mount_adapter(ServiceState& state, Call& call) {
  const std::string& where = call.request.path;
  const auto request =
      read_fields(parse_body(call.request.body, where), mount_fields(), where);
  const std::string id = mount(state, request);
  respond_json(call, mounted_json(state, id));
}

void unmount_adapter(ServiceState& state, Call& call) {
  const std::string& id = call.rest_of_path;
  mounted_json(state, id); // or a 404
  state.adapters.unmount(id);
  const Json deleted{{"id", id}, {"object", "adapter"}, {"deleted", true}};
  respond_json(call, deleted);
}

} // namespace optiq::server
