#include "engine/grammar/automaton.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/error.h"

namespace dsctl::engine::grammar {
namespace {

constexpr size_t kMaxStacks = 4096;
constexpr size_t kMaxStates = 1'000'000;
constexpr size_t kMaxFrames = 16'000'000;

uint64_t mix(uint64_t hash, uint64_t value) {
  hash ^= value + 0x9E3779B97F4A7C15u + (hash << 6) + (hash >> 2);
  hash *= 0xFF51AFD7ED558CCDu;
  return hash ^ (hash >> 32);
}

uint64_t pack(int32_t a, int32_t b) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(a)) << 32) | static_cast<uint32_t>(b);
}

}  // namespace

bool Automaton::VisitedSet::insert(uint64_t key) {
  if (2 * (n_ + 1) > slots_.size()) grow();
  const size_t mask = slots_.size() - 1;
  size_t i = mix(0, key) & mask;
  for (; slots_[i].round == round_; i = (i + 1) & mask) {
    if (slots_[i].key == key) return false;
  }
  slots_[i] = {.key = key, .round = round_};
  ++n_;
  return true;
}

void Automaton::VisitedSet::clear() {
  ++round_;
  n_ = 0;
}

void Automaton::VisitedSet::grow() {
  const std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(slots_.size() * 2));
  n_ = 0;
  for (const Slot& slot : old) {
    if (slot.round == round_) insert(slot.key);
  }
}

Automaton::Automaton(const Program& program) : program_(program) {
  frames_.push_back({});  // kBottom
  equivalent_frames_.push_back(kBottom);
  state_of_closure();  // kDead
  close(program.start(), kBottom);
  start_ = state_of_closure();
}

State Automaton::next(State state, std::string_view bytes) {
  for (const char byte : bytes) {
    if (state == kDead) break;
    state = next(state, static_cast<uint8_t>(byte));
  }
  return state;
}

/// Works out one cell of the table.
State Automaton::compute(State state, size_t cell) {
  const auto byte_class = static_cast<int>(cell % static_cast<size_t>(program_.n_classes()));
  const uint8_t byte = program_.byte_of(byte_class);
  const StateInfo info = states_[static_cast<size_t>(state)];
  for (size_t i = 0; i < info.n_items; ++i) {
    const Item item = items_[info.first_item + i];
    const Node& node = program_.node(item.node);
    if (program_.set(node.arg)[byte]) close(node.next, item.frame);
  }
  const State result = state_of_closure();
  table_[cell] = result;
  return result;
}

/// Adds to the closure the stacks that `node` on top of `frame` stands for.
void Automaton::close(int32_t node, FrameId frame) {
  pending_.push_back({node, frame});
  while (!pending_.empty()) {
    const Item item = pending_.back();
    pending_.pop_back();
    if (visited_.insert(pack(item.node, item.frame))) follow(item.node, item.frame);
  }
}

void Automaton::follow(int32_t node_idx, FrameId frame_idx) {
  const Node& node = program_.node(node_idx);
  switch (node.op) {
    case Node::Op::kBytes:
      if (closure_.size() >= kMaxStacks) {
        throw Error("grammar: more than " + std::to_string(kMaxStacks) +
                    " ways to read the same text; make it less ambiguous");
      }
      closure_.push_back({node_idx, frame_idx});
      return;
    case Node::Op::kSplit:
      for (int32_t i = 0; i < node.next; ++i)
        pending_.push_back({program_.target(node.arg + i), frame_idx});
      return;
    case Node::Op::kCall: {
      // A call at a rule's end needs no way back: lists that are written with recursion stay flat.
      const bool is_last = program_.node(node.next).op == Node::Op::kReturn;
      const FrameId frame =
          is_last ? frame_idx
                  : frame_id({.node = node.next, .count = kNoRound, .parent = frame_idx});
      pending_.push_back({node.arg, frame});
      return;
    }
    case Node::Op::kRepeat:
      enter_round(node_idx, 0, frame_idx);
      return;
    case Node::Op::kReturn: {
      if (frame_idx == kBottom) {
        closure_accepts_ = true;
        return;
      }
      const Frame frame = frames_[static_cast<size_t>(frame_idx)];
      if (frame.count != kNoRound) {
        enter_round(frame.node, frame.count + 1, frame.parent);
      } else {
        pending_.push_back({frame.node, frame.parent});
      }
      return;
    }
  }
}

/// A repetition of which `count` rounds are done: another one, or what comes after.
void Automaton::enter_round(int32_t node_idx, int32_t count, FrameId frame) {
  const Node& node = program_.node(node_idx);
  const Count& limits = program_.count(node.arg);
  if (count >= limits.min) pending_.push_back({node.next, frame});
  if (count < limits.max) {
    pending_.push_back(
        {limits.body, frame_id({.node = node_idx, .count = count, .parent = frame})});
  }
}

Automaton::FrameId Automaton::frame_id(const Frame& frame) {
  const uint64_t hash =
      mix(mix(0, pack(frame.node, frame.count)), static_cast<uint64_t>(frame.parent));
  for (auto [it, end] = frame_ids_.equal_range(hash); it != end; ++it) {
    const Frame& known = frames_[static_cast<size_t>(it->second)];
    if (known.node == frame.node && known.count == frame.count && known.parent == frame.parent) {
      return it->second;
    }
  }
  if (frames_.size() >= kMaxFrames) throw Error("grammar: the text is nested too deeply");
  const auto id = static_cast<FrameId>(frames_.size());
  frames_.push_back(frame);
  equivalent_frames_.push_back(kUnknown);
  frame_ids_.emplace(hash, id);
  return id;
}

/// The number of the set of stacks in closure_, which is emptied.
State Automaton::state_of_closure() {
  std::sort(closure_.begin(), closure_.end());
  uint64_t hash = closure_accepts_ ? 1 : 0;
  for (const Item& item : closure_)
    hash = mix(hash, pack(item.node, item.frame));
  State state = kUnknown;
  for (auto [it, end] = state_ids_.equal_range(hash); it != end; ++it) {
    const auto known = items(it->second);
    if (is_accepting(it->second) == closure_accepts_ &&
        std::equal(known.begin(), known.end(), closure_.begin(), closure_.end())) {
      state = it->second;
      break;
    }
  }
  if (state == kUnknown) {
    if (states_.size() >= kMaxStates) {
      throw Error("grammar: more than " + std::to_string(kMaxStates) + " states were met");
    }
    state = static_cast<State>(states_.size());
    states_.push_back(
        {.first_item = items_.size(), .n_items = closure_.size(), .accepting = closure_accepts_});
    items_.insert(items_.end(), closure_.begin(), closure_.end());
    state_ids_.emplace(hash, state);
    table_.resize(states_.size() * static_cast<size_t>(program_.n_classes()), kUnknown);
    equivalents_.push_back(kUnknown);
    if (state == kDead) {
      std::fill(table_.begin(), table_.end(), kDead);
    }
  }
  closure_.clear();
  closure_accepts_ = false;
  visited_.clear();
  return state;
}

State Automaton::equivalent(State state, int n_bytes) {
  if (n_bytes != equivalent_bytes_) {
    equivalent_bytes_ = n_bytes;
    std::fill(equivalents_.begin(), equivalents_.end(), kUnknown);
    std::fill(equivalent_frames_.begin() + 1, equivalent_frames_.end(), kUnknown);
  }
  if (const State known = equivalents_[static_cast<size_t>(state)]; known != kUnknown) return known;
  const StateInfo info = states_[static_cast<size_t>(state)];
  for (size_t i = 0; i < info.n_items; ++i) {
    const Item item = items_[info.first_item + i];
    const FrameId frame = equivalent_frame(item.frame, n_bytes);
    if (visited_.insert(pack(item.node, frame))) {
      closure_.push_back({item.node, frame});
    }
  }
  closure_accepts_ = info.accepting;
  const State result = state_of_closure();
  equivalents_[static_cast<size_t>(state)] = result;
  return result;
}

Automaton::FrameId Automaton::equivalent_frame(FrameId id, int n_bytes) {
  // Down to a frame that is known, then back up: stacks may be deep.
  std::vector<FrameId> path;
  while (equivalent_frames_[static_cast<size_t>(id)] == kUnknown) {
    path.push_back(id);
    id = frames_[static_cast<size_t>(id)].parent;
  }
  FrameId result = equivalent_frames_[static_cast<size_t>(id)];
  for (auto it = path.rbegin(); it != path.rend(); ++it) {
    Frame frame = frames_[static_cast<size_t>(*it)];
    frame.parent = result;
    if (frame.count != kNoRound) {
      // Each round takes at least a byte. The first of these counts with the same way out: none
      // within n_bytes when min is far, at any time when it is reached; max far either way.
      const Count& limits = program_.count(program_.node(frame.node).arg);
      if (limits.max - frame.count > n_bytes + 1) {
        if (limits.min - frame.count > n_bytes + 1) {
          frame.count = 0;
        } else if (frame.count >= limits.min) {
          frame.count = limits.min;
        }
      }
    }
    result = frame_id(frame);
    equivalent_frames_[static_cast<size_t>(*it)] = result;
  }
  return result;
}

}  // namespace dsctl::engine::grammar
