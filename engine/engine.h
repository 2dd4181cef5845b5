// Engine: the loaded model that answers many requests at once. One thread owns all its mutable
// state; every public function only sends it a message.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "engine/request.h"
#include "gguf/gguf_file.h"

namespace dsctl::engine {

class Tokenizer;

enum class Device { kAuto, kCpu, kCuda };

/// Which implementation of the CPU operations runs: the readable reference, or the fastest that
/// this processor has.
enum class CpuKernels { kFast, kReference };

/// A LoRA adapter in GGUF form and how strongly it is applied: 1 as its maker meant it.
struct LoraAdapter {
  std::string path;
  float scale = 1.0f;
};

/// How the cache keeps keys and values. kAuto: f16, which halves its memory and what a long context
/// costs a token; f32 where the kernels are the reference or the cache holds latents on the CPU.
enum class KvCacheType { kAuto, kF32, kF16 };

struct EngineOptions {
  Device device = Device::kAuto;
  CpuKernels cpu_kernels = CpuKernels::kFast;
  int n_threads = 0;         // CPU threads over all ranks; 0: one for each physical core
  int tp_size = 1;           // tensor-parallel ranks (CPU: threads; CUDA: GPUs)
  int max_model_len = 4096;  // tokens of one sequence, prompt and output; capped by the model
  int max_num_seqs = 16;     // sequences in one step
  int max_num_batched_tokens = 512;  // tokens in one step: the prefill chunk
  int block_size = 16;               // tokens of one KV block
  /// KV blocks of all sequences; 0: enough for max_num_seqs sequences of max_model_len, bounded by
  /// a quarter of the free memory but never under one full sequence.
  int n_kv_blocks = 0;
  KvCacheType kv_cache_type = KvCacheType::kAuto;
  bool prefix_caching = true;
  std::vector<LoraAdapter> adapters;  // applied together
  int max_queue = 512;                // waiting requests before submit says QueueFull
  int n_gpu_layers = -1;              // -1: as many as fit
  /// The model's tokenizer, which must outlive the engine. DRY needs it to find its sequence
  /// breakers among the tokens, grammars to know the tokens' texts: without it such requests are
  /// refused.
  const Tokenizer* tokenizer = nullptr;
};

/// A snapshot for `ps`, logs and tests.
struct EngineStats {
  int n_running = 0;
  int n_waiting = 0;
  int n_kv_blocks = 0;
  int n_free_kv_blocks = 0;
  int64_t n_steps = 0;
  int64_t n_prompt_tokens = 0;
  int64_t n_generated_tokens = 0;
  int64_t n_preemptions = 0;
  int64_t weight_bytes = 0;  // held by all ranks, mapped or copied
  int64_t kv_bytes = 0;
  int max_model_len = 0;  // after the model's own cap and that of all KV blocks together
  std::string device;     // "CPU (AVX-512 VNNI), 2 threads" or the GPU's name
};

/// Why a request was not taken.
enum class SubmitError {
  kQueueFull,
  kPromptTooLong,
  kEmptyPrompt,
  kBadToken,
  kBadSampling,  // a sampling parameter that is not a number or out of its range
  kBadGrammar,   // a grammar, schema or regular expression that can't be followed
  kBadPooling,   // a pooling that this model or device doesn't have
  kStopped
};

struct SubmitResult {
  RequestId request_id = 0;  // valid when error is absent
  std::optional<SubmitError> error;
  std::string message;  // says what was found and what was expected
};

/// Destroying an engine ends every request with kCancelled and joins its thread; a sink must not do
/// it.
class Engine {
 public:
  /// Loads the model of `file`, which must outlive the engine. Throws Error when the architecture
  /// is not supported, a key or tensor is missing or has another shape, or memory does not suffice.
  static std::unique_ptr<Engine> load(const gguf::GgufFile& file, const EngineOptions& options);

  virtual ~Engine() = default;

  /// Queues a request; its events go to `sink`, none when there is an error. Thread-safe, does not
  /// block; a sink may call it too.
  virtual SubmitResult submit(Request request, EventSink sink) = 0;
  /// Ends a request early: its sink gets a finish with kCancelled unless it has ended already.
  /// Thread-safe, does not block; a sink may call it too.
  virtual void cancel(RequestId id) = 0;
  virtual EngineStats stats() const = 0;
};

}  // namespace dsctl::engine
