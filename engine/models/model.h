// Model: one architecture's forward pass over a rank's weights, written once for every device and
// any number of ranks.
#pragma once

#include "engine/model_config.h"
#include "engine/ops.h"

namespace dsctl::engine {

class Model {
 public:
  virtual ~Model() = default;
  /// What this rank's cache keeps of a token.
  virtual KvShape kv_shape() const = 0;
  /// One step, between ops.begin() and ops.sample(): from the tokens to the logits of the wanted
  /// rows. `ops` is the one that loaded the weights.
  virtual void forward(Ops& ops) const = 0;
};

}  // namespace dsctl::engine
