// exp and its kin over sixteen lanes, for the files that include one of the simd_*.h. The same
// operations in the same order on both instruction sets: the same bits.
#pragma once

#include "engine/cpu/fast/isa.h"

namespace dsctl::engine::fast {
namespace {

/// e^x, within 2 ulp for x in [-87, 88]; beyond, the value at the bound. exp(0) is exactly 1.
DSCTL_SIMD Floats exp(Floats x) {
  // x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 in two parts, the first with trailing zeros so that
  // n * part is exact. The polynomial is Cephes' expf.
  x = min(max(x, broadcast(-87.0f)), broadcast(88.0f));
  const Floats n = round_to_int(mul(x, broadcast(1.44269504088896341f)));
  Floats r = fma(n, broadcast(-0.693359375f), x);
  r = fma(n, broadcast(2.12194440e-4f), r);
  Floats p = broadcast(1.9875691500e-4f);
  p = fma(p, r, broadcast(1.3981999507e-3f));
  p = fma(p, r, broadcast(8.3334519073e-3f));
  p = fma(p, r, broadcast(4.1665795894e-2f));
  p = fma(p, r, broadcast(1.6666665459e-1f));
  p = fma(p, r, broadcast(5.0000001201e-1f));
  p = fma(p, mul(r, r), add(r, broadcast(1.0f)));
  return mul(p, power_of_two(n));
}

/// x / (1 + e^-x)
DSCTL_SIMD Floats silu(Floats x) {
  const Floats one = broadcast(1.0f);
  return div(x, add(one, exp(sub(zero_floats(), x))));
}

/// 0.5 x (1 + tanh(u)) = x / (1 + e^(-2 u)) with u = sqrt(2 / pi) (x + 0.044715 x^3)
DSCTL_SIMD Floats gelu_tanh(Floats x) {
  const Floats one = broadcast(1.0f);
  const Floats inner = fma(mul(x, x), broadcast(0.044715f), one);
  const Floats minus_two_u = mul(mul(x, broadcast(-2.0f * 0.79788456080286535588f)), inner);
  return div(x, add(one, exp(minus_two_u)));
}

/// tanh x = 1 - 2 / (e^(2 x) + 1), to an absolute 2e-7.
DSCTL_SIMD Floats tanh(Floats x) {
  const Floats one = broadcast(1.0f);
  const Floats e = exp(add(x, x));
  return sub(one, div(broadcast(2.0f), add(e, one)));
}

}  // namespace
}  // namespace dsctl::engine::fast
