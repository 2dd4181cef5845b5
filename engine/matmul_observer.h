// MatmulObserver: who wants to see what goes into a model's matrix products. Only importance
// matrices do; without one nothing is added to a step.
#pragma once

#include <cstddef>

#include "engine/tensor.h"

namespace dsctl::engine {

class MatmulObserver {
 public:
  virtual ~MatmulObserver() = default;
  /// `inputs` (tokens, n_cols) are about to meet the weight whose data begins at `weight` in the
  /// model file's mapping; of a stack of experts that of the one expert. On the engine's thread.
  virtual void see(const std::byte* weight, const Rows& inputs) = 0;
};

}  // namespace dsctl::engine
