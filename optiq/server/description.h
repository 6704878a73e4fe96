#pragma once

#include "optiq/artifacts/json.h"
#include "optiq/io/model_directory.h"
#include "optiq/models/setup.h"

namespace optiq::server {

/**
 * A model as the page shows it, once it is loaded: the part of the answer of
 * GET /v1/optiq/model that never changes.
 *
 *   {"model_type", "parameters", "file_bytes", "file_bpw", "mean_code_bits",
 *    "context", "vocab_size", "device", "simd", "compute", "version",
 *    "columns": [{"part": "mlp.up_proj", "block": "mlp", "name": "up"}, ...],
 *    "layers": [{"layer": 0,
 *                "parts": [{"part", "bits", "group_size", "bytes"}, ...],
 *                "kv": KV}, ...],
 *    "outside": [{"part": "embed_tokens", "bits", "group_size", "bytes"}, ...],
 *    "kv_bytes_per_token", "sequence_bytes"}
 *
 * group_size 0 is a dense matrix. KV, what a layer keeps of a sequence, is
 * {"method": "dense", "bits": 16}, {"method": "affine" or "turbo", "key_bits",
 * "value_bits", "group_size"} with 0 bits for a dense side, each with "window"
 * where there is one; {"method": "state", "bytes"}; or {"method": "shared",
 * "layer"}. kv_bytes_per_token is that of the first token, sequence_bytes what
 * a sequence costs before it. The server adds to it
 *
 *   {"id", "defaults": {"temperature", "top_p", "top_k", "min_p",
 *     "repetition_penalty", "presence_penalty", "frequency_penalty",
 *     "max_tokens"},
 *    "adapters": the ids of those that are mounted,
 *    "status": {"running", "waiting", "kv_bytes", "kv_max_bytes",
 *     "prefix_bytes", "prompt_tokens", "cached_tokens", "answer_tokens",
 *     "preemptions"}}
 *
 * of generate::EngineStatus (kv_bytes is its cache_bytes).
 */
artifacts::Json describe_model(
    const io::ModelDirectory& directory,
    const models::Setup& setup);

} // namespace optiq::server
