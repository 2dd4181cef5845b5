#include "commands/text_chunks.h"

#include <algorithm>
#include <atomic>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>

#include "commands/error.h"

namespace dsctl::commands {

std::vector<int32_t> TextChunks::input(int idx) const {
  const auto begin = tokens.begin() + static_cast<std::ptrdiff_t>(idx) * n_ctx;
  std::vector<int32_t> chunk(begin, begin + n_ctx);
  if (bos >= 0) chunk.front() = bos;
  return chunk;
}

TextChunks read_chunks(const std::filesystem::path& path, const engine::Tokenizer& tokenizer,
                       int n_ctx, int max_chunks) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(path.string() + ": can't be opened");
  std::string text(std::istreambuf_iterator<char>(file), {});
  if (text.ends_with('\n')) text.pop_back();
  TextChunks chunks;
  chunks.n_ctx = n_ctx;
  chunks.bos = tokenizer.adds_bos() ? tokenizer.bos() : -1;
  chunks.tokens = tokenizer.encode(text, engine::AddSpecial::kYes, engine::SpecialTokens::kAsText);
  const size_t n_tokens = chunks.tokens.size();
  size_t n_chunks = n_tokens / static_cast<size_t>(n_ctx);
  if (n_chunks == 0) {
    throw Error(path.string() + ": " + std::to_string(n_tokens) +
                " tokens, expected at least one chunk of " + std::to_string(n_ctx) +
                ": give a longer text or a smaller --ctx");
  }
  if (max_chunks > 0) n_chunks = std::min(n_chunks, static_cast<size_t>(max_chunks));
  chunks.tokens.resize(n_chunks * static_cast<size_t>(n_ctx));
  return chunks;
}

void for_each_parallel(int n, int n_threads, const std::function<void(int)>& body) {
  std::atomic<int> next{0};
  const auto work = [&] {
    for (int i = next++; i < n; i = next++)
      body(i);
  };
  std::vector<std::jthread> threads;
  for (int i = 1; i < std::min(n, n_threads); ++i)
    threads.emplace_back(work);
  work();
}

int thread_count(int n_threads) {
  if (n_threads > 0) return n_threads;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace dsctl::commands
