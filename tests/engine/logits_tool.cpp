// logits_tool: writes a model's logits for a list of tokens, or continues it greedily; what
// tests/golden/models/compare_llamacpp.py compares with.
//
//   logits_tool MODEL TOKENS_FILE OUT [--window N] [--kernels fast|reference] [--tp N] [--threads
//   N] [--device cpu|cuda]
//   logits_tool MODEL TOKENS_FILE --greedy N [...]
//
// TOKENS_FILE: int32 token ids. OUT: int32 n_tokens, int32 vocab_size, float32 logits[n_tokens,
// vocab_size]. With --window the tokens are taken as independent sequences of N.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "engine/model_worker.h"
#include "gguf/gguf_file.h"

namespace {

using dsctl::engine::Batch;
using dsctl::engine::ModelWorker;

struct Arguments {
  std::string model;
  std::string tokens;
  std::string out;
  int window = 0;
  int n_skipped = 0;
  int n_greedy = 0;
  dsctl::engine::EngineOptions options;
};

Arguments parse(int argc, char** argv) {
  Arguments arguments;
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag.rfind("--", 0) != 0) {
      files.push_back(flag);
      continue;
    }
    if (++i == argc) throw std::runtime_error(flag + ": value missing");
    const std::string value = argv[i];
    if (flag == "--window") {
      arguments.window = std::stoi(value);
    } else if (flag == "--skip") {
      arguments.n_skipped = std::stoi(value);
    } else if (flag == "--greedy") {
      arguments.n_greedy = std::stoi(value);
    } else if (flag == "--tp") {
      arguments.options.tp_size = std::stoi(value);
    } else if (flag == "--adapter") {
      arguments.options.adapters.push_back({.path = value});
    } else if (flag == "--threads") {
      arguments.options.n_threads = std::stoi(value);
    } else if (flag == "--device") {
      arguments.options.device =
          value == "cuda" ? dsctl::engine::Device::kCuda : dsctl::engine::Device::kCpu;
    } else if (flag == "--kernels") {
      arguments.options.cpu_kernels = value == "reference" ? dsctl::engine::CpuKernels::kReference
                                                           : dsctl::engine::CpuKernels::kFast;
    } else {
      throw std::runtime_error(flag + ": unknown flag");
    }
  }
  if (files.size() < 2) throw std::runtime_error("usage: logits_tool MODEL TOKENS_FILE OUT");
  arguments.model = files[0];
  arguments.tokens = files[1];
  if (files.size() > 2) arguments.out = files[2];
  return arguments;
}

std::vector<int32_t> read_tokens(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  std::vector<int32_t> tokens(bytes.size() / sizeof(int32_t));
  std::copy_n(bytes.data(), tokens.size() * sizeof(int32_t),
              reinterpret_cast<char*>(tokens.data()));
  return tokens;
}

/// Tokens [begin, end) of a sequence that has the blocks 0, 1, ...; logits are wanted of the rows
/// from position first_row on.
Batch chunk(const std::vector<int32_t>& tokens, int begin, int end, int block_size, int first_row) {
  Batch batch;
  for (int i = begin; i < end; ++i) {
    batch.token_ids.push_back(tokens[static_cast<size_t>(i)]);
    batch.positions.push_back(i);
    batch.slot_mapping.push_back(i);
    if (i < first_row) continue;
    batch.sample_rows.emplace_back();
    batch.sample_rows.back().token_idx = i - begin;
  }
  batch.query_starts = {0, end - begin};
  batch.context_lens = {end};
  batch.max_blocks_per_seq = (end + block_size - 1) / block_size;
  for (int i = 0; i < batch.max_blocks_per_seq; ++i)
    batch.block_tables.push_back(i);
  return batch;
}

void write_logits(ModelWorker& worker, const Arguments& arguments,
                  const std::vector<int32_t>& tokens) {
  std::ofstream out(arguments.out, std::ios::binary);
  const int n_tokens = static_cast<int>(tokens.size());
  const int window = arguments.window > 0 ? arguments.window : n_tokens;
  const int step = arguments.options.max_num_batched_tokens;
  for (int first = 0; first < n_tokens; first += window) {
    const std::vector<int32_t> sequence(tokens.begin() + first,
                                        tokens.begin() + std::min(first + window, n_tokens));
    const int length = static_cast<int>(sequence.size());
    for (int begin = 0; begin < length; begin += step) {
      const auto logits = worker.run_logits(chunk(sequence, begin, std::min(begin + step, length),
                                                  worker.limits().block_size, arguments.n_skipped));
      out.write(reinterpret_cast<const char*>(logits.data()),
                static_cast<std::streamsize>(logits.size() * sizeof(float)));
    }
  }
}

void continue_greedily(ModelWorker& worker, const Arguments& arguments,
                       std::vector<int32_t> tokens) {
  const auto start = std::chrono::steady_clock::now();
  const int step = arguments.options.max_num_batched_tokens;
  int n_done = 0;
  for (int i = 0; i < arguments.n_greedy; ++i) {
    std::vector<float> logits;
    while (n_done < static_cast<int>(tokens.size())) {
      const int end = std::min(n_done + step, static_cast<int>(tokens.size()));
      logits = worker.run_logits(chunk(tokens, n_done, end, worker.limits().block_size, end - 1));
      n_done = end;
    }
    tokens.push_back(
        static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    std::cout << tokens.back() << (i + 1 < arguments.n_greedy ? " " : "\n") << std::flush;
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::cerr << worker.limits().device << ": " << tokens.size() / seconds.count() << " tokens/s\n";
}

}  // namespace

int main(int argc, char** argv) try {
  Arguments arguments = parse(argc, argv);
  const auto tokens = read_tokens(arguments.tokens);
  arguments.options.max_model_len = static_cast<int>(tokens.size()) + arguments.n_greedy + 1;
  arguments.options.max_num_batched_tokens = 64;
  arguments.options.max_num_seqs = arguments.n_greedy > 0 ? 1 : 64;
  arguments.options.n_kv_blocks =
      arguments.options.max_model_len / arguments.options.block_size + 1;
  const auto file = dsctl::gguf::GgufFile::open(arguments.model);
  ModelWorker worker(file, arguments.options);
  if (arguments.n_greedy > 0) {
    continue_greedily(worker, arguments, tokens);
  } else {
    write_logits(worker, arguments, tokens);
  }
  return 0;
} catch (const std::exception& error) {
  std::cerr << "logits_tool: " << error.what() << "\n";
  return 1;
}
