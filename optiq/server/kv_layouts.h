#pragma once

#include <cstddef>
#include <mutex>
#include <utility>
#include <vector>

#include "optiq/artifacts/kv_codec.h"
#include "optiq/cache/layout.h"
#include "optiq/models/setup.h"

namespace optiq::server {

/** What a model's layers keep of a sequence, for the K/V formats that requests
 * ask for; the last ones stay made. Any thread may call. */
class KvLayouts {
 public:
  explicit KvLayouts(models::Setup setup);

  /** Every K/V cache in this format. Throws InvalidInput for a model without
   * any, InvalidInput or Unsupported for a format that there is not. */
  std::vector<cache::LayerFormat> layout(const artifacts::KvCodec& codec);

 private:
  using Made = std::pair<artifacts::KvCodec, std::vector<cache::LayerFormat>>;

  models::Setup setup_;
  std::mutex mutex_; // guards made_
  std::vector<Made> made_; // the one used last at the end
};

} // namespace optiq::server
