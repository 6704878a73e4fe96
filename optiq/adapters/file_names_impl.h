#pragma once

namespace optiq::adapters {

inline constexpr const char* kConfigFile = "adapter_config.json";
inline constexpr const char* kPeftFile = "adapter_model.safetensors";
inline constexpr const char* kMlxFile = "adapters.safetensors";
inline constexpr const char* kRecordFile = "optiq_lora_config.json";
/** Member of the record in which we, and not the original, say what we made. */
inline constexpr const char* kRecordMember = "optiq";
/** In it, scales by the paths of the model. */
inline constexpr const char* kScalesMember = "module_scales";

} // namespace optiq::adapters
