// Communicator: how the ranks of a tensor-parallel group exchange values. Every rank calls the same
// operations in the same order with the same sizes; a group of one returns at once.
#pragma once

#include <cstddef>
#include <span>

namespace dsctl::engine {

/// One rank's end of the group. Buffers are in the memory of the rank's device. Not thread-safe:
/// one thread per rank. Every operation throws Error when the group was aborted or when the ranks
/// disagree on the sizes.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  /// values[i] becomes the sum over the ranks, added in rank order: (r0 + r1) + r2 ..., so that all
  /// ranks hold the same bits.
  virtual void all_reduce(std::span<float> values) = 0;

  /// Writes the parts of all ranks into `all`, one after the other in rank order. Parts may differ
  /// in length; `all` is as long as they are together. `part` may be its own place within `all`.
  virtual void all_gather(std::span<const float> part, std::span<float> all) = 0;

  /// `bytes` of rank `root` is copied to the other ranks.
  virtual void broadcast(std::span<std::byte> bytes, int root) = 0;

  /// Returns when every rank has called it.
  virtual void barrier() = 0;
};

/// The group of one rank: nothing to exchange.
class SingleRank final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void all_reduce(std::span<float> values) override;
  void all_gather(std::span<const float> part, std::span<float> all) override;
  void broadcast(std::span<std::byte> bytes, int root) override;
  void barrier() override {}
};

}  // namespace dsctl::engine
