// The gate of a gated feed-forward network, on the CPU.
#pragma once

#include "engine/cpu/linear.h"

namespace dsctl::engine {

float silu(float x);       // x * sigmoid(x)
float gelu_tanh(float x);  // 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))

/// y[i] = activation(gate[i]) * up[i]; `y` may be `gate` or `up`.
void gated(float* y, const float* gate, const float* up, int n, Activation activation);

}  // namespace dsctl::engine
