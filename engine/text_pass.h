// TextPass: a text's tokens through a model for what it computes, not for what it says: the logits
// of each token, and what goes into the weights. For perplexity and importance matrices.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "engine/matmul_observer.h"
#include "gguf/gguf_file.h"

namespace dsctl::engine {

struct TextPassOptions {
  int n_ctx = 512;    // tokens of the longest sequence
  int n_threads = 0;  // 0: one for each physical core
  int n_batch = 128;  // tokens at once
  CpuKernels cpu_kernels = CpuKernels::kFast;
  MatmulObserver* observer = nullptr;  // outlives the pass; null: nobody looks
};

/// One thread at a time.
class TextPass {
 public:
  /// `file` outlives it. Throws Error as make_worker says, also when n_ctx is more than the model
  /// was made for.
  TextPass(const gguf::GgufFile& file, const TextPassOptions& options);
  ~TextPass();

  int vocab_size() const;

  /// Logits of some tokens of the sequence that follow each other.
  struct Logits {
    int first_token = 0;                       // index in the sequence
    std::vector<std::span<const float>> rows;  // (vocab_size) each, of one token after another
  };

  /// Computes one sequence of 1 to n_ctx tokens from an empty context. Tokens from `first_wanted`
  /// on go through the whole model and their logits to `see`, in order, some at a time; of those
  /// before, the last layer computes only what the others read.
  void run(std::span<const int32_t> tokens, int first_wanted,
           const std::function<void(const Logits&)>& see);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dsctl::engine
