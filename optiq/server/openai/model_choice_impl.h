#pragma once

#include <memory>
#include <string>
#include <vector>

#include "optiq/server/openai/answer_fields.h"
#include "optiq/server/service_state_impl.h"

namespace optiq::server::openai {

/** What a request runs on. */
struct ModelChoice {
  std::string name; // "id", or with an adapter "id:selection"
  std::shared_ptr<const nn::Adapter> adapter; // or none
  std::vector<std::string> adapter_ids; // that the selection names
};

/** "id:selection", or the id alone for no selection. */
std::string name_with_adapter(
    const ServiceState& state,
    const std::string& selection);

/**
 * What the request names: by `model`, which is the served model's id or
 * "default", or that and a selection of adapters behind ':', or by a selection
 * in `adapter` or `adapters`. Reads an adapter that is not resident. Throws
 * RequestErrors: 404 for another model, or an adapter that is not mounted, 400
 * for adapters in two places and what is no selection, 429 where adapters in
 * use leave no room.
 */
ModelChoice choose_model(ServiceState& state, const AnswerFields& fields);

/** Throws a RequestError (404). */
[[noreturn]] void refuse_model(
    const ServiceState& state,
    const std::string& name);

} // namespace optiq::server::openai
