#include "engine/text_pass.h"

#include <algorithm>
#include <string>

#include "engine/error.h"
#include "engine/model_worker.h"

namespace dsctl::engine {
namespace {

constexpr int kBlockSize = 16;

EngineOptions engine_options(const TextPassOptions& options) {
  EngineOptions engine;
  engine.device = Device::kCpu;
  engine.cpu_kernels = options.cpu_kernels;
  engine.n_threads = options.n_threads;
  engine.max_model_len = options.n_ctx;
  engine.max_num_batched_tokens = std::min(options.n_batch, options.n_ctx);
  engine.max_num_seqs = engine.max_num_batched_tokens;  // rows of logits in one step
  engine.block_size = kBlockSize;
  engine.n_kv_blocks = (options.n_ctx + kBlockSize - 1) / kBlockSize;
  return engine;
}

}  // namespace

struct TextPass::State {
  TextPassOptions options;
  ModelWorker worker;
  SamplingParams params;  // never used: nothing is sampled
};

TextPass::TextPass(const gguf::GgufFile& file, const TextPassOptions& options)
    : state_(new State{options, {file, engine_options(options), options.observer}, {}}) {
  const int n_ctx = state_->worker.limits().max_model_len;
  if (n_ctx < options.n_ctx) {
    throw Error("a context of " + std::to_string(options.n_ctx) +
                " tokens, the model was made for " + std::to_string(n_ctx));
  }
}

TextPass::~TextPass() = default;

int TextPass::vocab_size() const {
  return state_->worker.limits().vocab_size;
}

void TextPass::run(std::span<const int32_t> tokens, int first_wanted,
                   const std::function<void(const Logits&)>& see) {
  const int n_tokens = static_cast<int>(tokens.size());
  const int n_batch = std::min(state_->options.n_batch, state_->options.n_ctx);
  for (int begin = 0; begin < n_tokens; begin += n_batch) {
    const int end = std::min(begin + n_batch, n_tokens);
    Batch batch;
    for (int i = begin; i < end; ++i) {
      batch.token_ids.push_back(tokens[static_cast<size_t>(i)]);
      batch.positions.push_back(i);
      batch.slot_mapping.push_back(i);  // block i / 16 is the sequence's i / 16th
      if (i >= first_wanted) {
        SampleRow row;
        row.token_idx = i - begin;
        row.params = &state_->params;
        batch.sample_rows.push_back(row);
      }
    }
    batch.query_starts = {0, end - begin};
    batch.context_lens = {end};
    batch.max_blocks_per_seq = (n_tokens + kBlockSize - 1) / kBlockSize;
    for (int block = 0; block < batch.max_blocks_per_seq; ++block)
      batch.block_tables.push_back(block);
    Logits logits;
    logits.first_token = std::max(begin, first_wanted);
    logits.rows = state_->worker.logit_rows(batch);
    if (!logits.rows.empty()) see(logits);
  }
}

}  // namespace dsctl::engine
