#pragma once

#include "optiq/kernels/attention.h"
#include "optiq/kernels/delta_net.h"
#include "optiq/kernels/kv_format.h"

/** Checks of what a layer's operation is given, by shapes alone: for devices
 * whose arrays are handles. All throw InvalidInput; messages begin with
 * `function`. */
namespace optiq::kernels {

/** Unless q, k and v are a rule's, and the rule a format's. */
void check_attention_shapes(
    const char* function,
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionRule& rule,
    const KvFormat& format);

/** Unless input and weights are of this shape, and the shape is one. */
void check_delta_net_shapes(
    const char* function,
    const DeltaNetInput& input,
    const DeltaNetWeights& weights,
    const DeltaNetShape& shape);

} // namespace optiq::kernels
