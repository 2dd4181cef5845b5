#include "engine/cpu/fast/simd_avx2.h"
// The lanes come first: the kernels are written over them.
#include "engine/cpu/fast/linear_kernels.h"

namespace dsctl::engine::fast {

const LinearIsa& linear_avx2() {
  static constexpr LinearIsa kIsa{"AVX2", kLinearTile, panel_function, quantize_tile};
  return kIsa;
}

}  // namespace dsctl::engine::fast
