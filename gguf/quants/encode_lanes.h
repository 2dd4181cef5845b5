// Sixteen f32 side by side, over the compiler's vector type: with AVX-512 one register, with AVX2
// two, otherwise four. Only operations that act on each lane alone, so every instruction set gives
// the same bits. Everything is in an anonymous namespace because each including file is compiled
// for another one.
#pragma once

#include <cstdint>
#include <cstring>

#define DSCTL_LANES [[gnu::always_inline]] inline

namespace dsctl::gguf {
namespace {

constexpr int kLanes = 16;
#if defined(__AVX512F__)
constexpr int kRegisterLanes = 16;
#elif defined(__AVX2__)
constexpr int kRegisterLanes = 8;
#else
constexpr int kRegisterLanes = 4;
#endif
constexpr int kRegisters = kLanes / kRegisterLanes;
using FloatRegister = float __attribute__((vector_size(kRegisterLanes * 4)));
using IntRegister = int32_t __attribute__((vector_size(kRegisterLanes * 4)));

/// Sixteen integers, or a mask: -1 or 0 in a lane.
struct Ints {
  IntRegister part[kRegisters] = {};

  Ints() = default;
  DSCTL_LANES Ints(int32_t value) {  // NOLINT: numbers are meant to convert
    for (IntRegister& p : part)
      p = IntRegister{} + value;
  }
  DSCTL_LANES int32_t operator[](int64_t lane) const {
    return part[lane / kRegisterLanes][lane % kRegisterLanes];
  }
  DSCTL_LANES friend Ints operator~(Ints a) {
    for (IntRegister& p : a.part)
      p = ~p;
    return a;
  }
#define DSCTL_LANE_OPERATOR(op)                         \
  DSCTL_LANES friend Ints operator op(Ints a, Ints b) { \
    for (int r = 0; r < kRegisters; ++r)                \
      a.part[r] = a.part[r] op b.part[r];               \
    return a;                                           \
  }
  DSCTL_LANE_OPERATOR(+)
  DSCTL_LANE_OPERATOR(-)
  DSCTL_LANE_OPERATOR(&)
  DSCTL_LANE_OPERATOR(|)
#undef DSCTL_LANE_OPERATOR
  DSCTL_LANES Ints& operator&=(Ints b) {
    return *this = *this & b;
  }
  DSCTL_LANES Ints& operator|=(Ints b) {
    return *this = *this | b;
  }
};

struct Floats {
  FloatRegister part[kRegisters] = {};

  Floats() = default;
  DSCTL_LANES Floats(float value) {  // NOLINT: numbers are meant to convert
    for (FloatRegister& p : part)
      p = FloatRegister{} + value;
  }
  DSCTL_LANES float operator[](int64_t lane) const {
    return part[lane / kRegisterLanes][lane % kRegisterLanes];
  }
  DSCTL_LANES friend Floats operator-(Floats a) {
    for (FloatRegister& p : a.part)
      p = -p;
    return a;
  }
#define DSCTL_LANE_OPERATOR(op)                               \
  DSCTL_LANES friend Floats operator op(Floats a, Floats b) { \
    for (int r = 0; r < kRegisters; ++r)                      \
      a.part[r] = a.part[r] op b.part[r];                     \
    return a;                                                 \
  }
  DSCTL_LANE_OPERATOR(+)
  DSCTL_LANE_OPERATOR(-)
  DSCTL_LANE_OPERATOR(*)
  DSCTL_LANE_OPERATOR(/)
#undef DSCTL_LANE_OPERATOR
#define DSCTL_LANE_COMPARISON(op)                           \
  DSCTL_LANES friend Ints operator op(Floats a, Floats b) { \
    Ints mask;                                              \
    for (int r = 0; r < kRegisters; ++r)                    \
      mask.part[r] = a.part[r] op b.part[r];                \
    return mask;                                            \
  }
  DSCTL_LANE_COMPARISON(<)
  DSCTL_LANE_COMPARISON(>)
  DSCTL_LANE_COMPARISON(<=)
  DSCTL_LANE_COMPARISON(>=)
  DSCTL_LANE_COMPARISON(==)
  DSCTL_LANE_COMPARISON(!=)
#undef DSCTL_LANE_COMPARISON
  DSCTL_LANES Floats& operator+=(Floats b) {
    return *this = *this + b;
  }
};

DSCTL_LANES Floats load(const float* from) {
  Floats lanes;
  std::memcpy(lanes.part, from, sizeof(lanes.part));
  return lanes;
}

DSCTL_LANES void store(float* to, Floats lanes) {
  std::memcpy(to, lanes.part, sizeof(lanes.part));
}

/// `lanes` without the sign.
DSCTL_LANES Floats magnitude(Floats lanes) {
  for (FloatRegister& p : lanes.part) {
    IntRegister bits;
    std::memcpy(&bits, &p, sizeof(bits));
    bits &= 0x7fffffff;
    std::memcpy(&p, &bits, sizeof(bits));
  }
  return lanes;
}

DSCTL_LANES Floats choose(Ints mask, Floats yes, Floats no) {
  for (int r = 0; r < kRegisters; ++r)
    no.part[r] = mask.part[r] ? yes.part[r] : no.part[r];
  return no;
}
DSCTL_LANES Ints choose(Ints mask, Ints yes, Ints no) {
  for (int r = 0; r < kRegisters; ++r)
    no.part[r] = mask.part[r] ? yes.part[r] : no.part[r];
  return no;
}

/// NaN in `a` gives `b`.
DSCTL_LANES Floats larger(Floats a, Floats b) {
  for (int r = 0; r < kRegisters; ++r)
    a.part[r] = a.part[r] > b.part[r] ? a.part[r] : b.part[r];
  return a;
}
DSCTL_LANES Floats smaller(Floats a, Floats b) {
  for (int r = 0; r < kRegisters; ++r)
    a.part[r] = a.part[r] < b.part[r] ? a.part[r] : b.part[r];
  return a;
}

DSCTL_LANES bool any(Ints mask) {
  int64_t longs[kLanes / 2];
  std::memcpy(longs, mask.part, sizeof(longs));
  int64_t joined = 0;
  for (const int64_t both : longs)
    joined |= both;
  return joined != 0;
}

DSCTL_LANES Floats to_floats(Ints lanes) {
  Floats floats;
  for (int r = 0; r < kRegisters; ++r)
    floats.part[r] = __builtin_convertvector(lanes.part[r], FloatRegister);
  return floats;
}

/// Towards zero; the lanes are in the range of an int.
DSCTL_LANES Ints to_ints(Floats lanes) {
  Ints ints;
  for (int r = 0; r < kRegisters; ++r)
    ints.part[r] = __builtin_convertvector(lanes.part[r], IntRegister);
  return ints;
}

/// To the nearest integer, ties to even, within [low, high]; NaN gives low. Adding 1.5 * 2^23
/// leaves no fraction.
DSCTL_LANES Floats nearest(Floats lanes, float low, float high) {
  constexpr float kNoFraction = 12582912.0F;
  return (smaller(larger(lanes, low), high) + kNoFraction) - kNoFraction;
}

/// Towards zero, within [low, high]; NaN gives low.
DSCTL_LANES Ints truncated(Floats lanes, float low, float high) {
  return to_ints(smaller(larger(lanes, low), high));
}

DSCTL_LANES Floats square_root(Floats lanes) {
  float roots[kLanes];
  store(roots, lanes);
  for (float& root : roots)
    root = __builtin_sqrtf(root);
  return load(roots);
}

/// The largest lane; NaNs are passed over.
DSCTL_LANES float largest_lane(Floats lanes) {
  float values[kLanes];
  store(values, lanes);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i)
      values[i] = values[i] > values[i + width] ? values[i] : values[i + width];
  }
  return values[0];
}

/// Each lane as a byte, which it fits.
DSCTL_LANES void store_bytes(uint8_t* to, Ints lanes) {
  int32_t values[kLanes];
  std::memcpy(values, lanes.part, sizeof(values));
  for (int i = 0; i < kLanes; ++i)
    to[i] = static_cast<uint8_t>(values[i]);
}

/// Sixteen groups of n values: element i of group g is lane g of x[i].
template <int n>
struct Groups {
  Floats x[n];
};

/// Gathers groups that begin at groups[0..15].
template <int n>
DSCTL_LANES void gather(const float* const (&groups)[kLanes], Groups<n>& out) {
  for (int i = 0; i < n; ++i) {
    float lanes[kLanes];
    for (int g = 0; g < kLanes; ++g)
      lanes[g] = groups[g][i];
    out.x[i] = load(lanes);
  }
}

/// The codes of each group as bytes: group g at codes + g * n.
template <int n>
DSCTL_LANES void scatter_codes(const Groups<n>& groups, uint8_t* codes) {
  for (int i = 0; i < n; ++i) {
    uint8_t bytes[kLanes];
    store_bytes(bytes, to_ints(groups.x[i]));
    for (int g = 0; g < kLanes; ++g)
      codes[g * n + i] = bytes[g];
  }
}

}  // namespace
}  // namespace dsctl::gguf
