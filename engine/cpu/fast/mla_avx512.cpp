#include "engine/cpu/fast/simd_avx512.h"
// The lanes come first: the kernels are written over them.

namespace dsctl::engine::fast {
namespace {

constexpr int kScoreKeys = 16;
constexpr int kValueHeads = 4;
constexpr int kValueVectors = 4;

}  // namespace
}  // namespace dsctl::engine::fast

#include "engine/cpu/fast/mla_kernels.h"

namespace dsctl::engine::fast {

const MlaIsa& mla_avx512() {
  static constexpr MlaIsa kIsa{attend_chunk, merge_chunks};
  return kIsa;
}

}  // namespace dsctl::engine::fast
