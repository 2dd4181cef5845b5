// Tensor types of GGUF: ids, names and block sizes. The ids are the file format's (ggml type ids).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace dsctl::gguf {

/// A tensor type by its id in the file. Retired ids have no enumerator and are refused by name.
enum class DType : uint32_t {
  F32 = 0,
  F16 = 1,
  Q4_0 = 2,
  Q4_1 = 3,
  Q5_0 = 6,
  Q5_1 = 7,
  Q8_0 = 8,
  Q8_1 = 9,
  Q2_K = 10,
  Q3_K = 11,
  Q4_K = 12,
  Q5_K = 13,
  Q6_K = 14,
  Q8_K = 15,
  IQ2_XXS = 16,
  IQ2_XS = 17,
  IQ3_XXS = 18,
  IQ1_S = 19,
  IQ4_NL = 20,
  IQ3_S = 21,
  IQ2_S = 22,
  IQ4_XS = 23,
  I8 = 24,
  I16 = 25,
  I32 = 26,
  I64 = 27,
  F64 = 28,
  IQ1_M = 29,
  BF16 = 30,
  TQ1_0 = 34,
  TQ2_0 = 35,
  MXFP4 = 39,
  NVFP4 = 40,
  Q1_0 = 41,
  Q2_0 = 42,
};

/// What the container needs to know of a type: its name and the size of one block.
struct DTypeInfo {
  DType dtype = DType::F32;
  std::string_view name;
  int block_elems = 1;
  int block_bytes = 4;
};

/// The description of `dtype`.
const DTypeInfo& dtype_info(DType dtype);

/// The type with file id `id`, or nothing when the id is unknown or retired.
std::optional<DType> dtype_from_id(uint32_t id);

/// The name of a retired id ("Q4_2"), or an empty view; for messages.
std::string_view retired_dtype_name(uint32_t id);

/// The type called `name` ("Q4_K"), case-insensitive, or nothing.
std::optional<DType> dtype_from_name(std::string_view name);

/// Bytes of a row of `n_elems` elements; `n_elems` is a multiple of the block size.
int64_t row_size_bytes(DType dtype, int64_t n_elems);

}  // namespace dsctl::gguf
