#pragma once

#include <memory>

#include "optiq/server/schema.h"
#include "optiq/server/service_state_impl.h"

/** The endpoints. They answer through call.reply, now or later; what they throw
 * becomes the answer. */
namespace optiq::server {

// openai/answer_endpoints.cpp
void chat_completions(ServiceState& state, Call& call);
Schema chat_completions_body();
void completions(ServiceState& state, Call& call);
Schema completions_body();

// openai/model_endpoints.cpp
void list_models(ServiceState& state, Call& call);
void show_model(ServiceState& state, Call& call);

// adapter_endpoints.cpp
void list_adapters(ServiceState& state, Call& call);
void show_adapter(ServiceState& state, Call& call);
void mount_adapter(ServiceState& state, Call& call);
Schema mount_adapter_body();
void unmount_adapter(ServiceState& state, Call& call);

// text_endpoints.cpp
void tokenize(ServiceState& state, Call& call);
Schema tokenize_body();
void detokenize(ServiceState& state, Call& call);
Schema detokenize_body();
void apply_template(ServiceState& state, Call& call);
Schema apply_template_body();

// status_endpoints.cpp
void health(ServiceState& state, Call& call);
void ready(ServiceState& state, Call& call);
void version(ServiceState& state, Call& call);
void metrics(ServiceState& state, Call& call);
void openapi(ServiceState& state, Call& call);
void describe_served(ServiceState& state, Call& call);
void page(ServiceState& state, Call& call);

} // namespace optiq::server
