#include "gguf/dtype.h"

#include <array>
#include <cassert>
#include <cctype>

namespace dsctl::gguf {
namespace {

// Sorted by id. Source of ids and sizes: ggml's type table.
constexpr std::array<DTypeInfo, 35> kTypes{{
    {DType::F32, "F32", 1, 4},
    {DType::F16, "F16", 1, 2},
    {DType::Q4_0, "Q4_0", 32, 18},
    {DType::Q4_1, "Q4_1", 32, 20},
    {DType::Q5_0, "Q5_0", 32, 22},
    {DType::Q5_1, "Q5_1", 32, 24},
    {DType::Q8_0, "Q8_0", 32, 34},
    {DType::Q8_1, "Q8_1", 32, 36},
    {DType::Q2_K, "Q2_K", 256, 84},
    {DType::Q3_K, "Q3_K", 256, 110},
    {DType::Q4_K, "Q4_K", 256, 144},
    {DType::Q5_K, "Q5_K", 256, 176},
    {DType::Q6_K, "Q6_K", 256, 210},
    {DType::Q8_K, "Q8_K", 256, 292},
    {DType::IQ2_XXS, "IQ2_XXS", 256, 66},
    {DType::IQ2_XS, "IQ2_XS", 256, 74},
    {DType::IQ3_XXS, "IQ3_XXS", 256, 98},
    {DType::IQ1_S, "IQ1_S", 256, 50},
    {DType::IQ4_NL, "IQ4_NL", 32, 18},
    {DType::IQ3_S, "IQ3_S", 256, 110},
    {DType::IQ2_S, "IQ2_S", 256, 82},
    {DType::IQ4_XS, "IQ4_XS", 256, 136},
    {DType::I8, "I8", 1, 1},
    {DType::I16, "I16", 1, 2},
    {DType::I32, "I32", 1, 4},
    {DType::I64, "I64", 1, 8},
    {DType::F64, "F64", 1, 8},
    {DType::IQ1_M, "IQ1_M", 256, 56},
    {DType::BF16, "BF16", 1, 2},
    {DType::TQ1_0, "TQ1_0", 256, 54},
    {DType::TQ2_0, "TQ2_0", 256, 66},
    {DType::MXFP4, "MXFP4", 32, 17},
    {DType::NVFP4, "NVFP4", 64, 36},
    {DType::Q1_0, "Q1_0", 128, 18},
    {DType::Q2_0, "Q2_0", 64, 18},
}};

struct RetiredType {
  uint32_t id;
  std::string_view name;
};

constexpr std::array<RetiredType, 8> kRetired{{{4, "Q4_2"},
                                               {5, "Q4_3"},
                                               {31, "Q4_0_4_4"},
                                               {32, "Q4_0_4_8"},
                                               {33, "Q4_0_8_8"},
                                               {36, "IQ4_NL_4_4"},
                                               {37, "IQ4_NL_4_8"},
                                               {38, "IQ4_NL_8_8"}}};

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::toupper(static_cast<unsigned char>(a[i])) !=
        std::toupper(static_cast<unsigned char>(b[i]))) {
      return false;
    }
  }
  return true;
}

}  // namespace

const DTypeInfo& dtype_info(DType dtype) {
  for (const DTypeInfo& info : kTypes) {
    if (info.dtype == dtype) return info;
  }
  assert(false && "a DType without a row in kTypes");
  return kTypes[0];
}

std::optional<DType> dtype_from_id(uint32_t id) {
  for (const DTypeInfo& info : kTypes) {
    if (static_cast<uint32_t>(info.dtype) == id) return info.dtype;
  }
  return std::nullopt;
}

std::string_view retired_dtype_name(uint32_t id) {
  for (const RetiredType& type : kRetired) {
    if (type.id == id) return type.name;
  }
  return {};
}

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const DTypeInfo& info : kTypes) {
    if (equal_ignoring_case(info.name, name)) return info.dtype;
  }
  return std::nullopt;
}

int64_t row_size_bytes(DType dtype, int64_t n_elems) {
  const DTypeInfo& info = dtype_info(dtype);
  assert(n_elems % info.block_elems == 0);
  return n_elems / info.block_elems * info.block_bytes;
}

}  // namespace dsctl::gguf
