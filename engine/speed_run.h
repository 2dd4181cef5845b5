// SpeedRun: how long prompts and generated tokens take, alone or in a batch, from an empty or a
// long context. For `bench`: no text, no scheduler, only steps of the model.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/engine.h"
#include "engine/worker.h"
#include "gguf/gguf_file.h"

namespace dsctl::engine {

struct SpeedRunOptions {
  int max_seqs = 1;    // sequences at once
  int max_tokens = 1;  // of one sequence, its context included
  int n_batch = 512;   // tokens of one step of a prompt
  int n_threads = 0;   // 0: one for each physical core
  Device device = Device::kAuto;
  CpuKernels cpu_kernels = CpuKernels::kFast;
  std::vector<LoraAdapter> adapters;
  uint64_t seed = 1;  // of the tokens
};

/// Tokens of `n_seqs` sequences, each after `depth` tokens of context.
struct SpeedCase {
  int n_seqs = 1;
  int depth = 0;
  int n_tokens = 0;  // of each sequence
};

/// One thread at a time.
class SpeedRun {
 public:
  /// `file` outlives it. Throws Error as make_worker says, and when max_tokens is more than the
  /// model was made for or the cache doesn't fit the memory.
  SpeedRun(const gguf::GgufFile& file, const SpeedRunOptions& options);
  ~SpeedRun();

  const ModelLimits& limits() const;
  /// Bytes of the cache that a token takes.
  int64_t kv_bytes_per_token() const;

  /// Fills the cache with `depth` random tokens of each of `n_seqs` sequences.
  void fill(int n_seqs, int depth);
  /// Seconds for prompts of random tokens, until all sequences have their first token's logits.
  double prompt(const SpeedCase& one);
  /// Seconds for generating tokens, one step after another; the tokens are random. Without
  /// sampling on the CPU, with the greedy choice on the device on a GPU, where it belongs to a
  /// step.
  double generate(const SpeedCase& one);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dsctl::engine
