#pragma once

#include "optiq/kernels/cpu/kv_layout.h"
#include "optiq/kernels/kv_format.h"

namespace optiq::kernels::cpu {

/** Device::kv_format. */
KvFormat kv_format(KvFormat format);

/** Of a format that kv_format made. Throws InvalidInput for another. */
const KvLayout& layout_of(const char* function, const KvFormat& format);

} // namespace optiq::kernels::cpu
