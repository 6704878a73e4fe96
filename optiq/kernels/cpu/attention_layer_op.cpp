#include "optiq/io/array.h"
#include "optiq/kernels/cpu/attention_heads.h"
#include "optiq/kernels/cpu/operations.h"

namespace optiq::kernels::cpu {

mx::array attend(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionRule& rule,
    std::span<const Segment> segments,
    const KvFormat& format) {
  const Heads heads = make_heads(q, k, v, rule, positions_of(segments));
  const mx::array attended = io::reshaped(
      append_and_attend(
          heads.q, heads.k, heads.v, segments, format, rule.scores),
      {heads.q.shape(0), rule.n_heads * rule.head_dim});
  return heads.gate ? sigmoid_gate(attended, *heads.gate) : attended;
}

} // namespace optiq::kernels::cpu
