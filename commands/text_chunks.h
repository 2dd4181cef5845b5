// A text cut into chunks of tokens, as llama-perplexity and llama-imatrix cut it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

#include "engine/tokenizer/tokenizer.h"

namespace dsctl::commands {

struct TextChunks {
  int n_ctx = 0;                // tokens of a chunk
  std::vector<int32_t> tokens;  // whole chunks of the text; what is left over is dropped
  int32_t bos = -1;             // takes the place of each chunk's first token; -1: none

  int n_chunks() const { return static_cast<int>(tokens.size()) / n_ctx; }
  /// What the model is given of chunk `idx`.
  std::vector<int32_t> input(int idx) const;
};

/// The text of `path`, less one line break at its end, in chunks of `n_ctx`; at most `max_chunks`
/// of them (0: all). Control tokens in it are plain text. Throws Error when there is not one chunk.
TextChunks read_chunks(const std::filesystem::path& path, const engine::Tokenizer& tokenizer,
                       int n_ctx, int max_chunks);

/// Calls body(i) for i in [0, n) on `n_threads` threads, the caller's among them. body does not
/// throw.
void for_each_parallel(int n, int n_threads, const std::function<void(int)>& body);

/// `n_threads`, or the number of processors when it is 0.
int thread_count(int n_threads);

}  // namespace dsctl::commands
