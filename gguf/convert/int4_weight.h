// Weights that AWQ and GPTQ store: 4-bit codes with a scale and a zero point for each group of
// inputs. They become GGUF's 4-bit and 5-bit blocks without a value changing.
//
// A value is scale * (code - zero), the scale an f16. GGUF's formats can say that in three ways,
// tried from the smallest one on:
//   Q4_0  d * (q - 8)     when every zero point is 8;
//   Q4_1  d * q + m       when -zero * scale has the 11 bits of an f16, in every group;
//   Q5_0  d * (q - 16)    always: code - zero is between -16 and 15.
// A group is some whole blocks of 32, each with the group's scale.
#pragma once

#include "gguf/convert/weight.h"

namespace dsctl::gguf::convert {

enum class Int4Layout {
  kAwq,     // qweight (inputs, outputs / 8), eight outputs a word in AWQ's order
  kGptq,    // qweight (inputs / 8, outputs), eight inputs a word; zero points are stored less one
  kGptqV2,  // the same with the zero points themselves
};

struct Int4Tensors {
  const SafeTensor* qweight = nullptr;  // I32
  const SafeTensor* qzeros = nullptr;   // I32 (inputs / group, outputs / 8)
  const SafeTensor* scales =
      nullptr;  // F16, or BF16 of values that F16 has (inputs / group, outputs)
  const SafeTensor* g_idx = nullptr;  // I32 (inputs): the group of each input; GPTQ, may be null
};

/// The matrix (outputs, inputs) of `tensors`. Throws Error naming the tensor: shapes that don't
/// suit each other, groups that are no multiple of 32, a g_idx that reorders the inputs
/// (act-order), a scale that F16 hasn't.
WeightPtr int4_weight(Int4Layout layout, const Int4Tensors& tensors);

/// The smallest GGUF type that holds `weight` exactly, for a quantised one: Q4_0, Q4_1, Q5_0, or
/// F32 when the rows run across its groups (a transposed half of kv_b_proj).
DType exact_dtype(const Weight& weight);

}  // namespace dsctl::gguf::convert
