// Sixteen lanes as two AVX2 registers, with the operations and the results of simd_avx512.h. For
// files named *_avx2.cpp only; in an unnamed namespace for the reason given there.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace dsctl::engine::fast {
namespace {

struct Floats {
  __m256 a, b;
};
struct Ints {
  __m256i a, b;
};

#define DSCTL_SIMD [[maybe_unused]] inline __attribute__((always_inline))

/// 16 registers: two tokens' accumulators fill eight, the weights and products the rest.
constexpr int kLinearTile = 4;

DSCTL_SIMD Floats zero_floats() {
  return {_mm256_setzero_ps(), _mm256_setzero_ps()};
}
DSCTL_SIMD Ints zero_ints() {
  return {_mm256_setzero_si256(), _mm256_setzero_si256()};
}
DSCTL_SIMD Floats broadcast(float value) {
  return {_mm256_set1_ps(value), _mm256_set1_ps(value)};
}
DSCTL_SIMD Ints broadcast_int(int32_t value) {
  return {_mm256_set1_epi32(value), _mm256_set1_epi32(value)};
}
DSCTL_SIMD Ints broadcast_byte(int value) {
  const __m256i v = _mm256_set1_epi8(static_cast<char>(value));
  return {v, v};
}
DSCTL_SIMD Floats load(const float* from) {
  return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
}
DSCTL_SIMD void store(float* to, Floats x) {
  _mm256_storeu_ps(to, x.a);
  _mm256_storeu_ps(to + 8, x.b);
}
DSCTL_SIMD __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
DSCTL_SIMD Floats load_first(const float* from, int n) {
  return {_mm256_maskload_ps(from, first_lanes(n)),
          n > 8 ? _mm256_maskload_ps(from + 8, first_lanes(n - 8)) : _mm256_setzero_ps()};
}
DSCTL_SIMD void store_first(float* to, Floats x, int n) {
  _mm256_maskstore_ps(to, first_lanes(n), x.a);
  if (n > 8) _mm256_maskstore_ps(to + 8, first_lanes(n - 8), x.b);
}
DSCTL_SIMD Floats load_half(const void* from) {
  const auto* halves = static_cast<const __m128i*>(from);
  return {_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
}
DSCTL_SIMD void store_half(void* to, Floats x) {
  auto* halves = static_cast<__m128i*>(to);
  _mm_storeu_si128(halves, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(halves + 1, _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}
DSCTL_SIMD Floats load_bf16(const void* from) {
  const auto* halves = static_cast<const __m128i*>(from);
  const __m256i a = _mm256_cvtepu16_epi32(_mm_loadu_si128(halves));
  const __m256i b = _mm256_cvtepu16_epi32(_mm_loadu_si128(halves + 1));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
}
DSCTL_SIMD Floats add(Floats x, Floats y) {
  return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}
DSCTL_SIMD Floats sub(Floats x, Floats y) {
  return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}
DSCTL_SIMD Floats mul(Floats x, Floats y) {
  return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
DSCTL_SIMD Floats div(Floats x, Floats y) {
  return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}
DSCTL_SIMD Floats fma(Floats x, Floats y, Floats z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
DSCTL_SIMD Floats max(Floats x, Floats y) {
  return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
}
DSCTL_SIMD Floats min(Floats x, Floats y) {
  return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)};
}
DSCTL_SIMD Floats abs(Floats x) {
  const __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  return {_mm256_and_ps(x.a, mask), _mm256_and_ps(x.b, mask)};
}
DSCTL_SIMD Floats select_less(Floats x, Floats y, Floats yes, Floats no) {
  return {_mm256_blendv_ps(no.a, yes.a, _mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ)),
          _mm256_blendv_ps(no.b, yes.b, _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ))};
}
DSCTL_SIMD Floats round_to_int(Floats x) {
  return {_mm256_round_ps(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
          _mm256_round_ps(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
DSCTL_SIMD Floats power_of_two(Floats n) {
  const __m256i bias = _mm256_set1_epi32(127);
  return {
      _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.a), bias), 23)),
      _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.b), bias), 23))};
}
DSCTL_SIMD Floats to_floats(Ints x) {
  return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)};
}
DSCTL_SIMD Ints to_ints(Floats x) {
  return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)};
}

DSCTL_SIMD float sum_lanes(Floats x) {
  const __m256 half = _mm256_add_ps(x.a, x.b);
  const __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  const __m128 pair = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
  return _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
}
DSCTL_SIMD float max_lanes(Floats x) {
  const __m256 half = _mm256_max_ps(x.a, x.b);
  const __m128 quarter = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  const __m128 pair = _mm_max_ps(quarter, _mm_movehl_ps(quarter, quarter));
  return _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)));
}
DSCTL_SIMD int32_t sum_lanes(Ints x) {
  const __m256i half = _mm256_add_epi32(x.a, x.b);
  __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
}

DSCTL_SIMD Ints load_bytes(const void* from) {
  const auto* bytes = static_cast<const __m256i*>(from);
  return {_mm256_loadu_si256(bytes), _mm256_loadu_si256(bytes + 1)};
}
DSCTL_SIMD Ints and_bits(Ints x, Ints y) {
  return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)};
}
DSCTL_SIMD Ints or_masked(Ints x, Ints y, Ints mask) {
  return {_mm256_or_si256(x.a, _mm256_and_si256(y.a, mask.a)),
          _mm256_or_si256(x.b, _mm256_and_si256(y.b, mask.b))};
}
template <int n>
DSCTL_SIMD Ints shift_bits(Ints x) {
  if constexpr (n > 0) {
    return {_mm256_slli_epi16(x.a, n), _mm256_slli_epi16(x.b, n)};
  } else if constexpr (n < 0) {
    return {_mm256_srli_epi16(x.a, -n), _mm256_srli_epi16(x.b, -n)};
  } else {
    return x;
  }
}
DSCTL_SIMD Ints load_table(const uint8_t* table) {
  const __m256i v =
      _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
  return {v, v};
}
DSCTL_SIMD Ints look_up(Ints table, Ints x) {
  return {_mm256_shuffle_epi8(table.a, x.a), _mm256_shuffle_epi8(table.b, x.b)};
}
DSCTL_SIMD Ints widen_unsigned(const void* from) {
  const __m128i bytes = _mm_loadu_si128(static_cast<const __m128i*>(from));
  return {_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))};
}
DSCTL_SIMD Ints widen_signed(const void* from) {
  const __m128i bytes = _mm_loadu_si128(static_cast<const __m128i*>(from));
  return {_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))};
}
template <int n>
DSCTL_SIMD Ints shift_left_ints(Ints x) {
  return {_mm256_slli_epi32(x.a, n), _mm256_slli_epi32(x.b, n)};
}
DSCTL_SIMD Floats bits_as_floats(Ints x) {
  return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)};
}
DSCTL_SIMD Ints max_ints(Ints x, Ints y) {
  return {_mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b)};
}
DSCTL_SIMD Ints add_ints(Ints x, Ints y) {
  return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)};
}
DSCTL_SIMD void store_as_words(int16_t* to, Ints x) {
  // packs works within 128-bit halves: a0 b0 | a1 b1, put in order by the permutation.
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), words);
}

DSCTL_SIMD Ints dot(Ints sum, Ints weights, const int16_t* x) {
  int32_t two;
  __builtin_memcpy(&two, x, sizeof(two));
  const __m256i pair = _mm256_set1_epi32(two);
  return {_mm256_add_epi32(sum.a, _mm256_madd_epi16(weights.a, pair)),
          _mm256_add_epi32(sum.b, _mm256_madd_epi16(weights.b, pair))};
}

}  // namespace
}  // namespace dsctl::engine::fast
