#pragma once

#include "optiq/generate/candidates_impl.h"
#include "optiq/generate/logit_scan.h"
#include "optiq/generate/sampler.h"

namespace optiq::generate {

/** What logits are multiplied by; the largest finite one for a temperature next
 * to 0. */
float scale_of(float temperature);

/** The scale at which the filters see a row; of a temperature above 0. */
float filter_scale(const SamplerOptions& options);

/** A logit that all tokens have which select_tokens looks at. */
float least_looked_at(LogitScan& scan, const SamplerOptions& options);

/** The tokens that the filters keep, for a temperature above 0; of a row whose
 * largest logit is finite. Weighed as the filters saw them. */
Candidates select_tokens(LogitScan& scan, const SamplerOptions& options);

} // namespace optiq::generate
