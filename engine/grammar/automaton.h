// Automaton: a program run on all its possible stacks at once. Each set of stacks met is given a
// number, and each step from one to the next is worked out once, so that a grammar becomes a table
// as it is used.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/grammar/program.h"

namespace dsctl::engine::grammar {

/// A set of stacks. kDead: there is none, the text is wrong.
using State = int32_t;
inline constexpr State kDead = 0;

/// Not thread-safe.
class Automaton {
 public:
  /// `program` outlives it.
  explicit Automaton(const Program& program);

  State start() const { return start_; }
  /// The state after `byte`. Throws Error when the grammar is ambiguous beyond all measure (4,096
  /// stacks at once) or a million states were met.
  State next(State state, uint8_t byte) {
    const size_t cell = cell_of(state, program_.class_of()[byte]);
    return table_[cell] != kUnknown ? table_[cell] : compute(state, cell);
  }
  State next(State state, std::string_view bytes);
  /// True when the text may end here.
  bool is_accepting(State state) const { return states_[static_cast<size_t>(state)].accepting; }
  /// True when nothing may follow.
  bool is_final(State state) const { return states_[static_cast<size_t>(state)].n_items == 0; }

  /// A state from which the same texts of up to `n_bytes` bytes can follow: counts that no such
  /// text can exhaust are made alike.
  State equivalent(State state, int n_bytes);

  size_t n_states() const { return states_.size(); }

 private:
  static constexpr State kUnknown = -1;
  using FrameId = int32_t;
  static constexpr FrameId kBottom = 0;
  static constexpr int32_t kNoRound = -1;

  /// What is to be done when a rule or a round of a repetition ends.
  struct Frame {
    int32_t node = 0;          // where to go on, or the kRepeat of a round
    int32_t count = kNoRound;  // rounds done before this one
    FrameId parent = kBottom;
  };
  /// A stack: the kBytes node on its top and the frames below.
  struct Item {
    int32_t node = 0;
    FrameId frame = kBottom;
    auto operator<=>(const Item&) const = default;
  };
  struct StateInfo {
    size_t first_item = 0;  // into items_
    size_t n_items = 0;
    bool accepting = false;
  };

  /// A set that is emptied at no cost.
  class VisitedSet {
   public:
    bool insert(uint64_t key);  // true when it is new
    void clear();

   private:
    struct Slot {
      uint64_t key = 0;
      uint64_t round = 0;
    };
    void grow();
    std::vector<Slot> slots_ = std::vector<Slot>(64);
    uint64_t round_ = 1;
    size_t n_ = 0;
  };

  size_t cell_of(State state, int byte_class) const {
    return static_cast<size_t>(state) * static_cast<size_t>(program_.n_classes()) +
           static_cast<size_t>(byte_class);
  }
  std::span<const Item> items(State state) const {
    const StateInfo& info = states_[static_cast<size_t>(state)];
    return {items_.data() + info.first_item, info.n_items};
  }
  State compute(State state, size_t cell);
  void close(int32_t node, FrameId frame);
  void follow(int32_t node, FrameId frame);
  void enter_round(int32_t node, int32_t count, FrameId frame);
  FrameId frame_id(const Frame& frame);
  FrameId equivalent_frame(FrameId frame, int n_bytes);
  State state_of_closure();

  const Program& program_;
  std::vector<Frame> frames_;
  std::unordered_multimap<uint64_t, FrameId> frame_ids_;  // by hash
  std::vector<Item> items_;                               // of all states
  std::vector<StateInfo> states_;
  std::unordered_multimap<uint64_t, State> state_ids_;  // by hash
  std::vector<State> table_;                            // (states, classes)
  std::vector<State> equivalents_;                      // (states) for equivalent_bytes_
  std::vector<FrameId> equivalent_frames_;              // (frames)
  int equivalent_bytes_ = -1;
  State start_ = kDead;

  // The closure under way.
  std::vector<Item> closure_;
  bool closure_accepts_ = false;
  std::vector<Item> pending_;
  VisitedSet visited_;
};

}  // namespace dsctl::engine::grammar
