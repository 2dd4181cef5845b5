#include "emulation.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

// Saves the registers that a function must keep and the stack, takes up another stack.
extern "C" void dsctl_emulation_switch(void** save, void* load);
asm(R"(
.text
.type dsctl_emulation_switch,@function
dsctl_emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size dsctl_emulation_switch,.-dsctl_emulation_switch
)");

namespace emulation {
namespace {

constexpr size_t kStackBytes = 256 * 1024;
constexpr int kWarpSize = 32;

struct Warp {
  int n_arrived = 0;
  int n_alive = 0;
  uint64_t generation = 0;
  alignas(64) unsigned char slots[kWarpSize][64];
};

struct Thread {
  void* stack_pointer = nullptr;
  std::unique_ptr<unsigned char[]> stack;
  Index idx;
  int number = 0;
  bool done = false;
};

struct Machine {
  Position position;
  Order order = Order::kForward;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<unsigned char> shared;
  const std::function<void()>* body = nullptr;
  void* scheduler = nullptr;
  int n_threads = 0;
  int n_alive = 0;
  int n_arrived = 0;
  uint64_t generation = 0;
  int current = 0;
  int n_idle = 0;
};

Machine machine;

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "emulated kernel: %s (block %u %u %u, thread %d)\n", what,
               machine.position.block.x, machine.position.block.y, machine.position.block.z,
               machine.current);
  std::abort();
}

Warp& warp() {
  return machine.warps[static_cast<size_t>(machine.current / kWarpSize)];
}

/// The next thread that is not done; the threads are there, the caller among them or done.
int next_thread() {
  int next = machine.current;
  const int step = machine.order == Order::kForward ? 1 : machine.n_threads - 1;
  do {
    next = (next + step) % machine.n_threads;
  } while (machine.threads[static_cast<size_t>(next)].done);
  return next;
}

void switch_to(int next) {
  Thread& from = machine.threads[static_cast<size_t>(machine.current)];
  Thread& to = machine.threads[static_cast<size_t>(next)];
  if (&from == &to) return;
  machine.current = next;
  machine.position.thread = to.idx;
  dsctl_emulation_switch(&from.stack_pointer, to.stack_pointer);
}

void yield() {
  if (++machine.n_idle > 2 * machine.n_threads + 2) die("threads wait for each other for ever");
  switch_to(next_thread());
}

void release_block_if_complete() {
  if (machine.n_alive > 0 && machine.n_arrived == machine.n_alive) {
    machine.n_arrived = 0;
    ++machine.generation;
  }
}

void thread_main() {
  (*machine.body)();
  Thread& own = machine.threads[static_cast<size_t>(machine.current)];
  own.done = true;
  --machine.n_alive;
  --warp().n_alive;
  machine.n_idle = 0;
  release_block_if_complete();
  if (machine.n_alive == 0) {
    dsctl_emulation_switch(&own.stack_pointer, machine.scheduler);
  } else {
    switch_to(next_thread());
  }
  die("a thread that ended went on");
}

void prepare_stack(Thread& thread) {
  if (!thread.stack) thread.stack.reset(new unsigned char[kStackBytes]);
  auto top = reinterpret_cast<uintptr_t>(thread.stack.get() + kStackBytes) & ~uintptr_t{15};
  auto* words = reinterpret_cast<uint64_t*>(top);
  words[-1] = 0;
  words[-2] = reinterpret_cast<uint64_t>(&thread_main);
  for (int i = 3; i <= 8; ++i)
    words[-i] = 0;
  thread.stack_pointer = words - 8;
}

void run_block() {
  const auto& size = machine.position.block_size;
  machine.n_alive = machine.n_threads;
  machine.n_arrived = 0;
  machine.n_idle = 0;
  machine.warps.assign(static_cast<size_t>((machine.n_threads + kWarpSize - 1) / kWarpSize), {});
  for (int i = 0; i < machine.n_threads; ++i) {
    Thread& thread = machine.threads[static_cast<size_t>(i)];
    const auto n = static_cast<unsigned>(i);
    thread.idx = {n % size.x, n / size.x % size.y, n / size.x / size.y};
    thread.number = i;
    thread.done = false;
    prepare_stack(thread);
    ++machine.warps[static_cast<size_t>(i / kWarpSize)].n_alive;
  }
  std::fill(machine.shared.begin(), machine.shared.end(), static_cast<unsigned char>(0xff));
  machine.current = machine.order == Order::kForward ? 0 : machine.n_threads - 1;
  Thread& first = machine.threads[static_cast<size_t>(machine.current)];
  machine.position.thread = first.idx;
  dsctl_emulation_switch(&machine.scheduler, first.stack_pointer);
}

}  // namespace

const Position& position() {
  return machine.position;
}

void set_order(Order order) {
  machine.order = order;
}

void run_grid(Index grid, Index block, size_t shared_bytes, const std::function<void()>& body) {
  machine.body = &body;
  machine.position.grid_size = grid;
  machine.position.block_size = block;
  machine.n_threads = static_cast<int>(block.x * block.y * block.z);
  if (machine.threads.size() < static_cast<size_t>(machine.n_threads)) {
    machine.threads.resize(static_cast<size_t>(machine.n_threads));
  }
  machine.shared.assign(shared_bytes + 16, 0);
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        machine.position.block = {x, y, z};
        run_block();
      }
    }
  }
}

void* dynamic_shared() {
  const auto address = reinterpret_cast<uintptr_t>(machine.shared.data());
  return reinterpret_cast<void*>((address + 15) & ~uintptr_t{15});
}

void sync_threads() {
  const uint64_t generation = machine.generation;
  ++machine.n_arrived;
  machine.n_idle = 0;
  release_block_if_complete();
  while (machine.generation == generation)
    yield();
}

void sync_warp() {
  Warp& own = warp();
  if (own.n_alive != kWarpSize) die("a warp-wide operation without all 32 lanes");
  const uint64_t generation = own.generation;
  machine.n_idle = 0;
  if (++own.n_arrived == kWarpSize) {
    own.n_arrived = 0;
    ++own.generation;
  }
  while (own.generation == generation)
    yield();
}

int lane() {
  return machine.current % kWarpSize;
}

const unsigned char (*exchange(const void* own, size_t n_bytes))[64] {
  Warp& mine = warp();
  std::memcpy(mine.slots[lane()], own, n_bytes);
  sync_warp();
  return mine.slots;
}

void end_exchange() {
  sync_warp();
}

}  // namespace emulation
