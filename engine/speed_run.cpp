#include "engine/speed_run.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <string>
#include <vector>

#include "engine/error.h"
#include "engine/kv_cache.h"
#include "engine/model_footprint.h"
#include "engine/model_worker.h"

namespace dsctl::engine {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kBlockSize = 16;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

int n_blocks_for(int n_tokens) {
  return (n_tokens + kBlockSize - 1) / kBlockSize;
}

void check_length(const gguf::GgufFile& file, const SpeedRunOptions& options) {
  const auto length =
      file.find_uint(std::string(file.architecture()) + ".context_length").value_or(0);
  if (length == 0 || static_cast<uint64_t>(options.max_tokens) <= length) return;
  throw Error("a context of " + std::to_string(options.max_tokens) +
              " tokens (depth and tokens together), but the model was made for " +
              std::to_string(length));
}

EngineOptions worker_options(const SpeedRunOptions& options) {
  EngineOptions result;
  result.device = options.device;
  result.cpu_kernels = options.cpu_kernels;
  result.n_threads = options.n_threads;
  result.max_model_len = options.max_tokens;
  result.max_num_seqs = options.max_seqs;
  result.max_num_batched_tokens = std::max(options.n_batch, options.max_seqs);
  result.block_size = kBlockSize;
  result.n_kv_blocks = options.max_seqs * n_blocks_for(options.max_tokens);
  result.adapters = options.adapters;
  return result;
}

/// The cache takes what it takes: better said now than when the system ends the process.
void check_memory(const gguf::GgufFile& file, const SpeedRunOptions& options) {
  if (options.device == Device::kCuda) return;
  const ModelFootprint model = measure_model(file);
  const int64_t n_values = model.kv.values(int64_t{n_blocks_for(options.max_tokens)} * kBlockSize);
  EngineOptions kernels;
  kernels.cpu_kernels = options.cpu_kernels;
  const int64_t kv = gguf::row_size_bytes(cpu_kv_dtype(file, kernels), n_values) * options.max_seqs;
  const int64_t needed = kv + model.total.size_bytes;
  const int64_t free_bytes = free_host_bytes();
  if (needed <= free_bytes) return;
  throw Error("needs " + std::to_string(needed) + " bytes of memory (weights " +
              std::to_string(model.total.size_bytes) + ", cache of " +
              std::to_string(options.max_seqs) + " x " + std::to_string(options.max_tokens) +
              " tokens " + std::to_string(kv) + "), but " + std::to_string(free_bytes) +
              " are free: use fewer sequences or less depth");
}

/// Before anything is made of the options: of unchecked ones even their products may overflow.
const SpeedRunOptions& checked(const gguf::GgufFile& file, const SpeedRunOptions& options) {
  check_length(file, options);
  check_memory(file, options);
  return options;
}

/// What a prompt's last tokens are for.
enum class Logits { kNone, kLast };

}  // namespace

struct SpeedRun::State {
  State(const gguf::GgufFile& file, const SpeedRunOptions& given)
      : options(checked(file, given)),
        worker(file, worker_options(given)),
        blocks_per_seq(n_blocks_for(given.max_tokens)),
        random(given.seed) {
    greedy.temperature = 0.0f;
  }

  int32_t next_token() {
    return static_cast<int32_t>(random() % static_cast<uint32_t>(worker.limits().vocab_size));
  }

  /// Adds tokens at [begin, end) of sequence `seq`.
  void add(Batch& batch, int seq, int begin, int end, Logits logits) {
    if (batch.query_starts.empty()) batch.query_starts.push_back(0);
    for (int i = begin; i < end; ++i) {
      batch.token_ids.push_back(next_token());
      batch.positions.push_back(i);
      batch.slot_mapping.push_back(seq * blocks_per_seq * kBlockSize + i);
    }
    batch.query_starts.push_back(batch.n_tokens());
    batch.context_lens.push_back(end);
    batch.max_blocks_per_seq = blocks_per_seq;
    for (int i = 0; i < blocks_per_seq; ++i)
      batch.block_tables.push_back(seq * blocks_per_seq + i);
    if (logits == Logits::kNone) return;
    SampleRow row;
    row.token_idx = batch.n_tokens() - 1;
    row.params = &greedy;
    row.history = &history;
    batch.sample_rows.push_back(row);
  }

  void step(const Batch& batch) {
    if (options.device != Device::kCuda) {
      worker.logit_rows(batch);
      return;
    }
    for (const SampledToken& token : worker.run(batch)) {
      if (!token.error.empty()) throw Error(token.error);
    }
  }

  /// The tokens of all sequences in steps of n_batch.
  void run_prompts(const SpeedCase& one, Logits logits) {
    Batch batch;
    const int end = one.depth + one.n_tokens;
    for (int seq = 0; seq < one.n_seqs; ++seq) {
      for (int position = one.depth; position < end;) {
        const int n = std::min(end - position, options.n_batch - batch.n_tokens());
        add(batch, seq, position, position + n, position + n == end ? logits : Logits::kNone);
        position += n;
        if (batch.n_tokens() < options.n_batch) continue;
        step(batch);
        batch = {};
      }
    }
    if (batch.n_tokens() > 0) step(batch);
  }

  SpeedRunOptions options;
  ModelWorker worker;
  int blocks_per_seq;
  std::mt19937_64 random;
  SamplingParams greedy;
  std::vector<int32_t> history{1};
};

SpeedRun::SpeedRun(const gguf::GgufFile& file, const SpeedRunOptions& options)
    : state_(std::make_unique<State>(file, options)) {}

SpeedRun::~SpeedRun() = default;

const ModelLimits& SpeedRun::limits() const {
  return state_->worker.limits();
}

int64_t SpeedRun::kv_bytes_per_token() const {
  const ModelLimits& limits = state_->worker.limits();
  return limits.kv_bytes / (int64_t{limits.n_kv_blocks} * limits.block_size);
}

void SpeedRun::fill(int n_seqs, int depth) {
  state_->run_prompts({.n_seqs = n_seqs, .depth = 0, .n_tokens = depth}, Logits::kNone);
}

double SpeedRun::prompt(const SpeedCase& one) {
  const auto begin = Clock::now();
  state_->run_prompts(one, Logits::kLast);
  return seconds_since(begin);
}

double SpeedRun::generate(const SpeedCase& one) {
  const auto begin = Clock::now();
  for (int i = 0; i < one.n_tokens; ++i) {
    Batch batch;
    const int position = one.depth + i;
    for (int seq = 0; seq < one.n_seqs; ++seq)
      state_->add(batch, seq, position, position + 1, Logits::kLast);
    state_->step(batch);
  }
  return seconds_since(begin);
}

}  // namespace dsctl::engine
