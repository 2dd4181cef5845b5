// Sixteen lanes as one AVX-512 register. For files named *_avx512.cpp only: everything is in an
// unnamed namespace, because an inline function with external linkage, compiled here, could be the
// copy that the linker keeps for machines without AVX-512.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
// False alarms about the intrinsics' own undefined operands (GCC bug 105593), gone in GCC 13.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <cstdint>

namespace dsctl::engine::fast {
namespace {

struct Floats {
  __m512 v;
};
struct Ints {
  __m512i v;
};

#define DSCTL_SIMD [[maybe_unused]] inline __attribute__((always_inline))

/// Tokens of one register tile: 8 integer and 8 float accumulators leave room for the weights.
constexpr int kLinearTile = 8;

DSCTL_SIMD Floats zero_floats() {
  return {_mm512_setzero_ps()};
}
DSCTL_SIMD Ints zero_ints() {
  return {_mm512_setzero_si512()};
}
DSCTL_SIMD Floats broadcast(float value) {
  return {_mm512_set1_ps(value)};
}
DSCTL_SIMD Ints broadcast_int(int32_t value) {
  return {_mm512_set1_epi32(value)};
}
DSCTL_SIMD Ints broadcast_byte(int value) {
  return {_mm512_set1_epi8(static_cast<char>(value))};
}
DSCTL_SIMD Floats load(const float* from) {
  return {_mm512_loadu_ps(from)};
}
DSCTL_SIMD void store(float* to, Floats a) {
  _mm512_storeu_ps(to, a.v);
}
DSCTL_SIMD __mmask16 first_lanes(int n) {
  return static_cast<__mmask16>((1u << n) - 1);
}
/// The first n (0 to 16) lanes; the others are zero.
DSCTL_SIMD Floats load_first(const float* from, int n) {
  return {_mm512_maskz_loadu_ps(first_lanes(n), from)};
}
DSCTL_SIMD void store_first(float* to, Floats a, int n) {
  _mm512_mask_storeu_ps(to, first_lanes(n), a.v);
}
DSCTL_SIMD Floats load_half(const void* from) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(from)))};
}
DSCTL_SIMD void store_half(void* to, Floats a) {
  _mm256_storeu_si256(static_cast<__m256i*>(to),
                      _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
DSCTL_SIMD Floats load_bf16(const void* from) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(from)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
DSCTL_SIMD Floats add(Floats a, Floats b) {
  return {_mm512_add_ps(a.v, b.v)};
}
DSCTL_SIMD Floats sub(Floats a, Floats b) {
  return {_mm512_sub_ps(a.v, b.v)};
}
DSCTL_SIMD Floats mul(Floats a, Floats b) {
  return {_mm512_mul_ps(a.v, b.v)};
}
DSCTL_SIMD Floats div(Floats a, Floats b) {
  return {_mm512_div_ps(a.v, b.v)};
}
DSCTL_SIMD Floats fma(Floats a, Floats b, Floats c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
DSCTL_SIMD Floats max(Floats a, Floats b) {
  return {_mm512_max_ps(a.v, b.v)};
}
DSCTL_SIMD Floats min(Floats a, Floats b) {
  return {_mm512_min_ps(a.v, b.v)};
}
DSCTL_SIMD Floats abs(Floats a) {
  return {_mm512_abs_ps(a.v)};
}
/// Lane by lane: a < b ? yes : no.
DSCTL_SIMD Floats select_less(Floats a, Floats b, Floats yes, Floats no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), no.v, yes.v)};
}
DSCTL_SIMD Floats round_to_int(Floats a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
/// 2^n for integral n in [-126, 127].
DSCTL_SIMD Floats power_of_two(Floats n) {
  const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23))};
}
DSCTL_SIMD Floats to_floats(Ints a) {
  return {_mm512_cvtepi32_ps(a.v)};
}
/// Rounds to nearest even.
DSCTL_SIMD Ints to_ints(Floats a) {
  return {_mm512_cvtps_epi32(a.v)};
}

/// Sums the lanes as a fixed binary tree.
DSCTL_SIMD float sum_lanes(Floats a) {
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  const __m128 pair = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
  return _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
}
DSCTL_SIMD float max_lanes(Floats a) {
  return _mm512_reduce_max_ps(a.v);
}
DSCTL_SIMD int32_t sum_lanes(Ints a) {
  return _mm512_reduce_add_epi32(a.v);
}

// Bytes.

DSCTL_SIMD Ints load_bytes(const void* from) {
  return {_mm512_loadu_si512(from)};
}
DSCTL_SIMD Ints and_bits(Ints a, Ints b) {
  return {_mm512_and_si512(a.v, b.v)};
}
/// a | (b & mask)
DSCTL_SIMD Ints or_masked(Ints a, Ints b, Ints mask) {
  return {_mm512_ternarylogic_epi32(a.v, b.v, mask.v, 0xf8)};
}
/// Shifts 16-bit units left by `n`, right when n is negative; the caller masks.
template <int n>
DSCTL_SIMD Ints shift_bits(Ints a) {
  if constexpr (n > 0) {
    return {_mm512_slli_epi16(a.v, n)};
  } else if constexpr (n < 0) {
    return {_mm512_srli_epi16(a.v, -n)};
  } else {
    return a;
  }
}
/// A table of 16 bytes, in the form that look_up wants.
DSCTL_SIMD Ints load_table(const uint8_t* table) {
  return {_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)))};
}
/// Byte by byte table[a], for bytes below 16.
DSCTL_SIMD Ints look_up(Ints table, Ints a) {
  return {_mm512_shuffle_epi8(table.v, a.v)};
}
/// 16 bytes as 16 integers.
DSCTL_SIMD Ints widen_unsigned(const void* from) {
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(from)))};
}
DSCTL_SIMD Ints widen_signed(const void* from) {
  return {_mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(from)))};
}
template <int n>
DSCTL_SIMD Ints shift_left_ints(Ints a) {
  return {_mm512_slli_epi32(a.v, n)};
}
DSCTL_SIMD Floats bits_as_floats(Ints a) {
  return {_mm512_castsi512_ps(a.v)};
}
DSCTL_SIMD Ints max_ints(Ints a, Ints b) {
  return {_mm512_max_epi32(a.v, b.v)};
}
DSCTL_SIMD Ints add_ints(Ints a, Ints b) {
  return {_mm512_add_epi32(a.v, b.v)};
}
/// Stores the lanes, which are in [-32768, 32767], as 16 words.
DSCTL_SIMD void store_as_words(int16_t* to, Ints a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(a.v));
}

/// Adds to every lane the two products of its 16-bit weights and the two values at x.
DSCTL_SIMD Ints dot(Ints sum, Ints weights, const int16_t* x) {
  // The embedded broadcast saves a micro-operation for each product; GCC 12 does not form it.
  asm("vpdpwssd %2%{1to16%}, %1, %0"
      : "+v"(sum.v)
      : "v"(weights.v), "m"(*reinterpret_cast<const int16_t(*)[2]>(x)));
  return sum;
}

}  // namespace
}  // namespace dsctl::engine::fast
