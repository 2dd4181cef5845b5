#include "engine/cpu/fast/simd_avx512.h"
// The lanes come first: the kernels are written over them.
#include "engine/cpu/fast/attention_kernels.h"

namespace dsctl::engine::fast {

const AttentionIsa& attention_avx512() {
  static constexpr AttentionIsa kIsa{start_state, attend<false>, attend<true>, merge_states,
                                     finish_row};
  return kIsa;
}

}  // namespace dsctl::engine::fast
