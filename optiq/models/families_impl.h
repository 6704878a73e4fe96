#pragma once

#include <memory>
#include <string>
#include <vector>

#include "optiq/models/checkpoint.h"
#include "optiq/models/model.h"

namespace optiq::models {

/** What a file in models/ provides for the model_types it serves. */
struct Family {
  const char* model_type; // of config.json
  /** Checkpoint tensors under MLX names, in source order. */
  std::vector<CheckpointTensor> (*sanitize)(const io::ModelDirectory&);
  std::unique_ptr<Model> (*load)(const io::ModelDirectory&, kernels::Device&);
};

extern const Family kCohere2; // cohere2.cpp
extern const Family kGemma2; // gemma2.cpp
extern const Family kGemma3Text; // gemma3_text.cpp
extern const Family kGemma4Text; // gemma4_text.cpp
extern const Family kGlm4; // glm4.cpp
extern const Family kGranite; // granite.cpp
extern const Family kLlama; // llama.cpp
extern const Family kMinistral3; // ministral3.cpp
extern const Family kMistral; // llama.cpp
extern const Family kMistral3; // ministral3.cpp
extern const Family kOlmo2; // olmo2.cpp
extern const Family kOlmo3; // olmo3.cpp
extern const Family kPhi3; // phi3.cpp
extern const Family kQwen2; // qwen2.cpp
extern const Family kQwen3; // qwen3.cpp
extern const Family kQwen35; // qwen3_5.cpp
extern const Family kSmolLm3; // smollm3.cpp

/** The directory's tensors as they are. */
std::vector<CheckpointTensor> list_tensors(const io::ModelDirectory& directory);

/** Whether a tensor, by its name, is of the head. */
bool is_head(const std::string& tensor);

/** The family of config.json's model_type. Throws Unsupported. */
const Family& find_family(const io::ModelDirectory& directory);

} // namespace optiq::models
