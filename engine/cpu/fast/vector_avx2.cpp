#include "engine/cpu/fast/simd_avx2.h"
// The lanes come first: the kernels are written over them.
#include "engine/cpu/fast/vector_kernels.h"

namespace dsctl::engine::fast {

const VectorIsa& vector_avx2() {
  static constexpr VectorIsa kIsa{rmsnorm,     gated_silu,  gated_gelu, add_values,
                                  rotate_norm, rotate_neox, to_half};
  return kIsa;
}

}  // namespace dsctl::engine::fast
