#include "gguf/quants/encode.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cassert>
#include <string>

#include "gguf/error.h"
#include "gguf/quants/encode_isa.h"

namespace dsctl::gguf {
namespace {

RowsEncoder encoder_on(EncoderIsa isa, DType dtype) {
#if defined(__x86_64__)
  switch (isa) {
    case EncoderIsa::kBase:
      return encoder_base(dtype);
    case EncoderIsa::kAvx2:
      return encoder_avx2(dtype);
    case EncoderIsa::kAvx512:
      return encoder_avx512(dtype);
  }
#endif
  return encoder_base(dtype);
}

#if defined(__x86_64__)
/// Clang 14 has no name for it in __builtin_cpu_supports. Where AVX2 is usable, so is it.
bool has_f16c() {
  constexpr unsigned kF16c = 1u << 29;
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & kF16c) != 0;
}
#endif

EncoderIsa best_isa() {
  static const EncoderIsa isa = has_encoder_isa(EncoderIsa::kAvx512) ? EncoderIsa::kAvx512
                                : has_encoder_isa(EncoderIsa::kAvx2) ? EncoderIsa::kAvx2
                                                                     : EncoderIsa::kBase;
  return isa;
}

}  // namespace

bool has_encoder_isa(EncoderIsa isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && has_f16c();
  if (isa == EncoderIsa::kAvx2) return avx2;
  if (isa == EncoderIsa::kAvx512) {
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  }
#endif
  return isa == EncoderIsa::kBase;
}

bool can_quantize(DType dtype) {
  return encoder_base(dtype) != nullptr;
}

void quantize_rows_on(EncoderIsa isa, DType dtype, const float* src, std::byte* dst, int64_t n_rows,
                      int64_t n_cols, const float* importance) {
  const RowsEncoder encode = encoder_on(isa, dtype);
  if (encode == nullptr) {
    throw Error("can't quantise to " + std::string(dtype_info(dtype).name) +
                ": there is no encoder for it");
  }
  assert(n_cols % dtype_info(dtype).block_elems == 0);
  if (n_rows > 0 && n_cols > 0) encode({src, dst, n_rows, n_cols, importance});
}

void quantize_rows(DType dtype, const float* src, std::byte* dst, int64_t n_rows, int64_t n_cols,
                   const float* importance) {
  quantize_rows_on(best_isa(), dtype, src, dst, n_rows, n_cols, importance);
}

void quantize_row(DType dtype, const float* src, std::byte* dst, int64_t n_elems) {
  quantize_rows(dtype, src, dst, 1, n_elems, nullptr);
}

}  // namespace dsctl::gguf
