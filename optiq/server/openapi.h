#pragma once

#include "optiq/artifacts/json.h"

namespace optiq::server {

/** The service in OpenAPI 3.1, made from its routes and the tables of their
 * fields: docs/openapi.json, and what /openapi.json answers. */
artifacts::Json openapi_document();

} // namespace optiq::server
