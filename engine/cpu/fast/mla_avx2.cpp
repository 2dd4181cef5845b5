#include "engine/cpu/fast/simd_avx2.h"
// The lanes come first: the kernels are written over them.

namespace dsctl::engine::fast {
namespace {

constexpr int kScoreKeys = 4;
constexpr int kValueHeads = 2;
constexpr int kValueVectors = 2;

}  // namespace
}  // namespace dsctl::engine::fast

#include "engine/cpu/fast/mla_kernels.h"

namespace dsctl::engine::fast {

const MlaIsa& mla_avx2() {
  static constexpr MlaIsa kIsa{attend_chunk, merge_chunks};
  return kIsa;
}

}  // namespace dsctl::engine::fast
