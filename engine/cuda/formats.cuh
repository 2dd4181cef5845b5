// Every tensor type of GGUF on the device, through the shared dequantisers of gguf/quants.
#pragma once

#include "engine/cuda/ptx.cuh"
#include "gguf/dtype.h"
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

namespace dsctl::engine::cuda {

/// Formats of one value a block, and the others.
// It would break the lists differently at every pass.
// clang-format off
#define DSCTL_PLAIN_FORMATS(X) X(F32) X(F16) X(BF16) X(F64) X(I8) X(I16) X(I32) X(I64)
#define DSCTL_BLOCK_FORMATS(X)                                                            \
  X(Q1_0) X(Q2_0) X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q8_0) X(Q8_1)                         \
  X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K) X(Q8_K)                                         \
  X(IQ1_S) X(IQ1_M) X(IQ2_XXS) X(IQ2_XS) X(IQ2_S) X(IQ3_XXS) X(IQ3_S) X(IQ4_NL) X(IQ4_XS) \
  X(TQ1_0) X(TQ2_0) X(MXFP4) X(NVFP4)
// clang-format on

template <typename Format>
__device__ __forceinline__ void dequantize_block(const typename Format::Block& block,
                                                 const gguf::IqGrids& grids, float* out) {
  using gguf::DType;
  constexpr DType kType = Format::kDType;
  if constexpr (kType == DType::IQ1_S || kType == DType::IQ1_M) {
    Format::dequantize(block, grids.iq1_s, out);
  } else if constexpr (kType == DType::IQ2_XXS) {
    Format::dequantize(block, grids.iq2_xxs, out);
  } else if constexpr (kType == DType::IQ2_XS) {
    Format::dequantize(block, grids.iq2_xs, out);
  } else if constexpr (kType == DType::IQ2_S) {
    Format::dequantize(block, grids.iq2_s, out);
  } else if constexpr (kType == DType::IQ3_XXS) {
    Format::dequantize(block, grids.iq3_xxs, out);
  } else if constexpr (kType == DType::IQ3_S) {
    Format::dequantize(block, grids.iq3_s, out);
  } else {
    Format::dequantize(block, out);
  }
}

}  // namespace dsctl::engine::cuda
