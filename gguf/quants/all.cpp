#include "gguf/quants/all.h"

#include <cassert>

#include "gguf/quants/iq1_m.h"
#include "gguf/quants/iq1_s.h"
#include "gguf/quants/iq2_s.h"
#include "gguf/quants/iq2_xs.h"
#include "gguf/quants/iq2_xxs.h"
#include "gguf/quants/iq3_s.h"
#include "gguf/quants/iq3_xxs.h"
#include "gguf/quants/iq4_nl.h"
#include "gguf/quants/iq4_xs.h"
#include "gguf/quants/iq_grids.h"
#include "gguf/quants/mxfp4.h"
#include "gguf/quants/nvfp4.h"
#include "gguf/quants/plain.h"
#include "gguf/quants/q1_0.h"
#include "gguf/quants/q2_0.h"
#include "gguf/quants/q2_k.h"
#include "gguf/quants/q3_k.h"
#include "gguf/quants/q4_0.h"
#include "gguf/quants/q4_1.h"
#include "gguf/quants/q4_k.h"
#include "gguf/quants/q5_0.h"
#include "gguf/quants/q5_1.h"
#include "gguf/quants/q5_k.h"
#include "gguf/quants/q6_k.h"
#include "gguf/quants/q8_0.h"
#include "gguf/quants/q8_1.h"
#include "gguf/quants/q8_k.h"
#include "gguf/quants/tq1_0.h"
#include "gguf/quants/tq2_0.h"

// The same code compiled twice where the machine may have wider vectors: no FMA in either, so the
// bits are the same.
#if defined(__x86_64__) && defined(__GNUC__)
#define DSCTL_WIDE_VECTORS __attribute__((target("avx2,f16c"), flatten))
#else
#define DSCTL_WIDE_VECTORS
#endif

namespace dsctl::gguf {
namespace {

/// One pass over the blocks of a row. `Codebook` is nothing or one grid pointer.
template <typename Format, typename... Codebook>
inline void dequantize_blocks(const std::byte* src, float* dst, int64_t n_elems,
                              Codebook... codebook) {
  using Block = typename Format::Block;
  static_assert(alignof(Block) == 1);
  const auto* blocks = reinterpret_cast<const Block*>(src);
  const int64_t n_blocks = n_elems / Format::kBlockElems;
  for (int64_t i = 0; i < n_blocks; ++i) {
    Format::dequantize(blocks[i], codebook..., dst + i * Format::kBlockElems);
  }
}

template <typename Format, typename... Codebook>
DSCTL_WIDE_VECTORS void dequantize_wide(const std::byte* src, float* dst, int64_t n_elems,
                                        Codebook... codebook) {
  dequantize_blocks<Format>(src, dst, n_elems, codebook...);
}

bool has_wide_vectors() {
#if defined(__x86_64__) && defined(__GNUC__)
  static const bool found = __builtin_cpu_supports("avx2") != 0;
  return found;
#else
  return false;
#endif
}

template <typename Format, typename... Codebook>
void dequantize(const std::byte* src, float* dst, int64_t n_elems, Codebook... codebook) {
  assert(n_elems % Format::kBlockElems == 0);
  if (has_wide_vectors()) {
    dequantize_wide<Format>(src, dst, n_elems, codebook...);
  } else {
    dequantize_blocks<Format>(src, dst, n_elems, codebook...);
  }
}

}  // namespace

void dequantize_row(DType dtype, const std::byte* src, float* dst, int64_t n_elems) {
  const IqGrids& grids = iq_grids();
  switch (dtype) {
    case DType::F32:
      return dequantize<F32>(src, dst, n_elems);
    case DType::F16:
      return dequantize<F16>(src, dst, n_elems);
    case DType::BF16:
      return dequantize<BF16>(src, dst, n_elems);
    case DType::F64:
      return dequantize<F64>(src, dst, n_elems);
    case DType::I8:
      return dequantize<I8>(src, dst, n_elems);
    case DType::I16:
      return dequantize<I16>(src, dst, n_elems);
    case DType::I32:
      return dequantize<I32>(src, dst, n_elems);
    case DType::I64:
      return dequantize<I64>(src, dst, n_elems);
    case DType::Q1_0:
      return dequantize<Q1_0>(src, dst, n_elems);
    case DType::Q2_0:
      return dequantize<Q2_0>(src, dst, n_elems);
    case DType::Q4_0:
      return dequantize<Q4_0>(src, dst, n_elems);
    case DType::Q4_1:
      return dequantize<Q4_1>(src, dst, n_elems);
    case DType::Q5_0:
      return dequantize<Q5_0>(src, dst, n_elems);
    case DType::Q5_1:
      return dequantize<Q5_1>(src, dst, n_elems);
    case DType::Q8_0:
      return dequantize<Q8_0>(src, dst, n_elems);
    case DType::Q8_1:
      return dequantize<Q8_1>(src, dst, n_elems);
    case DType::Q2_K:
      return dequantize<Q2_K>(src, dst, n_elems);
    case DType::Q3_K:
      return dequantize<Q3_K>(src, dst, n_elems);
    case DType::Q4_K:
      return dequantize<Q4_K>(src, dst, n_elems);
    case DType::Q5_K:
      return dequantize<Q5_K>(src, dst, n_elems);
    case DType::Q6_K:
      return dequantize<Q6_K>(src, dst, n_elems);
    case DType::Q8_K:
      return dequantize<Q8_K>(src, dst, n_elems);
    case DType::IQ1_S:
      return dequantize<IQ1_S>(src, dst, n_elems, grids.iq1_s);
    case DType::IQ1_M:
      return dequantize<IQ1_M>(src, dst, n_elems, grids.iq1_s);
    case DType::IQ2_XXS:
      return dequantize<IQ2_XXS>(src, dst, n_elems, grids.iq2_xxs);
    case DType::IQ2_XS:
      return dequantize<IQ2_XS>(src, dst, n_elems, grids.iq2_xs);
    case DType::IQ2_S:
      return dequantize<IQ2_S>(src, dst, n_elems, grids.iq2_s);
    case DType::IQ3_XXS:
      return dequantize<IQ3_XXS>(src, dst, n_elems, grids.iq3_xxs);
    case DType::IQ3_S:
      return dequantize<IQ3_S>(src, dst, n_elems, grids.iq3_s);
    case DType::IQ4_NL:
      return dequantize<IQ4_NL>(src, dst, n_elems);
    case DType::IQ4_XS:
      return dequantize<IQ4_XS>(src, dst, n_elems);
    case DType::TQ1_0:
      return dequantize<TQ1_0>(src, dst, n_elems);
    case DType::TQ2_0:
      return dequantize<TQ2_0>(src, dst, n_elems);
    case DType::MXFP4:
      return dequantize<MXFP4>(src, dst, n_elems);
    case DType::NVFP4:
      return dequantize<NVFP4>(src, dst, n_elems);
  }
}

}  // namespace dsctl::gguf
