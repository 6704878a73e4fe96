#include "optiq/quant/static_rules.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace optiq::quant {
namespace {

using artifacts::ModuleId;
using artifacts::ModuleKind;

ModuleKind kind_of(const ModuleId& module) {
  return artifacts::kind_of(module.role);
}

bool is_embedding_or_head(const ModuleId& module) {
  const ModuleKind kind = kind_of(module);
  return kind == ModuleKind::Embedding || kind == ModuleKind::Head;
}

bool is_attention(const ModuleId& module) {
  return kind_of(module) == ModuleKind::Attention;
}

bool is_mixer(const ModuleId& module) {
  return is_attention(module) || kind_of(module) == ModuleKind::DeltaNet;
}

} // namespace

double static_priority(const ModuleId& module, int n_blocks) {
  if (is_embedding_or_head(module)) {
    return 1.0;
  }
  const int i = module.layer;
  double priority = 0.30;
  if (i >= 0) {
    const int last = n_blocks - 1;
    const double edge = std::min(i, last - i) / std::max(n_blocks / 2.0, 1.0);
    if (i == 0 || i == last) {
      priority = 0.90;
    } else if (i <= 1 || i >= n_blocks - 2) {
      priority = 0.65;
    } else {
      priority += 0.15 * (1 - edge);
    }
  }
  switch (kind_of(module)) {
    case ModuleKind::Attention:
      priority += 0.30;
      break;
    case ModuleKind::Router:
      priority += 0.40;
      break;
    case ModuleKind::Expert:
      priority -= 0.10;
      break;
    default:
      break;
  }
  return std::clamp(priority, 0.05, 1.0);
}

double static_error(double priority, std::uint64_t parameters, int bits) {
  return priority * static_cast<double>(parameters) *
      std::ldexp(1.0, -2 * bits);
}

std::vector<bool> protected_modules(std::span<const ModuleId> modules) {
  int last_block = -1;
  int first_attention = std::numeric_limits<int>::max();
  int last_attention = -1;
  for (const ModuleId& module : modules) {
    last_block = std::max(last_block, module.layer);
    if (is_attention(module)) {
      first_attention = std::min(first_attention, module.layer);
      last_attention = std::max(last_attention, module.layer);
    }
  }
  std::vector<bool> result;
  for (const ModuleId& module : modules) {
    const int block = module.layer;
    result.push_back(
        is_embedding_or_head(module) ||
        (is_mixer(module) && (block == 0 || block == last_block)) ||
        (is_attention(module) &&
         (block == first_attention || block == last_attention)));
  }
  return result;
}

} // namespace optiq::quant
