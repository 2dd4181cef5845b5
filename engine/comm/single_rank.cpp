#include <algorithm>
#include <string>

#include "engine/comm/communicator.h"
#include "engine/error.h"

namespace dsctl::engine {

void SingleRank::all_reduce(std::span<float> /*values*/) {}

void SingleRank::all_gather(std::span<const float> part, std::span<float> all) {
  if (part.size() != all.size()) {
    throw Error("all_gather: " + std::to_string(part.size()) + " values given by the only rank, " +
                std::to_string(all.size()) + " expected");
  }
  if (part.data() != all.data()) std::copy(part.begin(), part.end(), all.begin());
}

void SingleRank::broadcast(std::span<std::byte> /*bytes*/, int /*root*/) {}

}  // namespace dsctl::engine
