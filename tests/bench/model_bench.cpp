// A whole model as llama-bench measures it: tokens a second of a prompt of 512 tokens (pp512) and
// of 64 tokens generated one by one from an empty context (tg64), without sampling.
//
//   model_bench FILE.gguf [n_threads [n_prompt [n_generate [n_runs [n_depth]]]]]
//
// n_depth tokens go before either. Compare in one run, interleaved:
// llama-bench -m FILE -t N -p 512 -n 64 -d DEPTH -fa 1.

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "engine/cpu/cpu_features.h"
#include "engine/model_worker.h"
#include "gguf/gguf_file.h"

namespace dsctl::engine {
namespace {

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// One sequence's next tokens at positions [first, first + n), logits of the last.
Batch make_batch(const std::vector<int32_t>& tokens, int first, int block_size) {
  Batch batch;
  batch.token_ids = tokens;
  const auto n = static_cast<int>(tokens.size());
  for (int i = 0; i < n; ++i) {
    batch.positions.push_back(first + i);
    batch.slot_mapping.push_back(first + i);
  }
  batch.query_starts = {0, n};
  batch.context_lens = {first + n};
  batch.max_blocks_per_seq = (first + n + block_size - 1) / block_size;
  for (int i = 0; i < batch.max_blocks_per_seq; ++i)
    batch.block_tables.push_back(i);
  batch.sample_rows = {{.token_idx = n - 1}};
  return batch;
}

/// A field of /proc/self/status in MiB.
double status_mib(const std::string& field) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(field, 0) == 0) return std::atof(line.c_str() + field.size() + 1) / 1024.0;
  }
  return 0.0;
}

void bench(const std::string& path, int n_threads, int n_prompt, int n_generate, int n_runs,
           int n_depth) {
  const auto load_begin = std::chrono::steady_clock::now();
  const gguf::GgufFile file = gguf::GgufFile::open(path);
  EngineOptions options;
  options.n_threads = n_threads;
  options.max_model_len = n_depth + std::max(n_prompt, n_generate);
  options.max_num_seqs = 1;
  options.max_num_batched_tokens = std::max(512, n_prompt);
  ModelWorker worker(file, options);
  const double load_seconds = seconds_since(load_begin);
  const int block_size = worker.limits().block_size;
  std::mt19937 random(1);
  const auto next_token = [&] {
    return static_cast<int32_t>(random() % static_cast<uint32_t>(worker.limits().vocab_size));
  };
  const auto random_tokens = [&](int n) {
    std::vector<int32_t> tokens(static_cast<size_t>(n));
    for (int32_t& token : tokens)
      token = next_token();
    return tokens;
  };
  for (int i = 0; i < n_depth; i += 512) {
    worker.run_logits(make_batch(random_tokens(std::min(512, n_depth - i)), i, block_size));
  }
  double best_prompt = 0.0;
  double best_generate = 0.0;
  for (int run = 0; run < n_runs; ++run) {
    if (n_prompt > 0) {
      const Batch batch = make_batch(random_tokens(n_prompt), n_depth, block_size);
      const auto begin = std::chrono::steady_clock::now();
      worker.run_logits(batch);
      best_prompt = std::max(best_prompt, n_prompt / seconds_since(begin));
    }
    if (n_generate > 0) {
      const auto begin = std::chrono::steady_clock::now();
      for (int i = 0; i < n_generate; ++i) {
        worker.run_logits(make_batch({next_token()}, n_depth + i, block_size));
      }
      best_generate = std::max(best_generate, n_generate / seconds_since(begin));
    }
  }
  const double file_mib = static_cast<double>(std::filesystem::file_size(path)) / 1048576.0;
  std::printf("%s, %s\n", path.c_str(), worker.limits().device.c_str());
  std::printf("load %.2f s, weights %.1f MiB, peak memory %.1f MiB = %.2f x file (%.1f MiB)\n",
              load_seconds, static_cast<double>(worker.limits().weight_bytes) / 1048576.0,
              status_mib("VmHWM:"), status_mib("VmHWM:") / file_mib, file_mib);
  std::printf("pp%d %.1f tok/s, tg%d %.1f tok/s (%.1f GB/s of weights), best of %d\n", n_prompt,
              best_prompt, n_generate, best_generate,
              best_generate * static_cast<double>(worker.limits().weight_bytes) / 1e9, n_runs);
}

}  // namespace
}  // namespace dsctl::engine

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr,
                 "usage: %s FILE.gguf [n_threads [n_prompt [n_generate [n_runs [n_depth]]]]]\n",
                 argv[0]);
    return 2;
  }
  const auto number = [&](int idx, int otherwise) {
    return argc > idx ? std::atoi(argv[idx]) : otherwise;
  };
  dsctl::engine::bench(argv[1], number(2, dsctl::engine::cpu_features().n_physical_cores),
                       number(3, 512), number(4, 64), number(5, 3), number(6, 0));
  return 0;
}
