#include "engine/cpu/ffn.h"

#include <cmath>

namespace dsctl::engine {

float silu(float x) {
  return x / (1.0f + std::exp(-x));
}

float gelu_tanh(float x) {
  constexpr float kSqrt2OverPi = 0.79788456080286535588f;
  return 0.5f * x * (1.0f + std::tanh(kSqrt2OverPi * x * (1.0f + 0.044715f * x * x)));
}

void gated(float* y, const float* gate, const float* up, int n, Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      for (int i = 0; i < n; ++i)
        y[i] = silu(gate[i]) * up[i];
      return;
    case Activation::kGeluTanh:
      for (int i = 0; i < n; ++i)
        y[i] = gelu_tanh(gate[i]) * up[i];
      return;
  }
}

}  // namespace dsctl::engine
