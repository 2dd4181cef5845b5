#include "engine/cuda/step_inputs.h"

#include <algorithm>
#include <cassert>

namespace dsctl::engine::cuda {

StepInputs::~StepInputs() {
  if (copied_ != nullptr) cudaEventDestroy(copied_);
}

void StepInputs::allocate(int max_tokens, int max_seqs, int max_rows, int max_table_stride) {
  capacity_ = int64_t{4} * max_tokens + max_rows + int64_t{max_seqs} * max_table_stride;
  const auto n_bytes = capacity_ * static_cast<int64_t>(sizeof(int32_t));
  host_ = allocate_pinned(n_bytes, "the inputs of a step");
  device_ = allocate_device(n_bytes, "the inputs of a step");
  check_cuda(cudaEventCreateWithFlags(&copied_, cudaEventDisableTiming), "creating an event");
}

void StepInputs::upload(const Batch& batch, int table_stride) {
  // The copy of the last step may still read the pinned memory when it sampled nothing.
  stream_.check(cudaEventSynchronize(copied_), "waiting for the last step's inputs");
  auto* host = reinterpret_cast<int32_t*>(host_.get());
  const auto* device = reinterpret_cast<const int32_t*>(device_.get());
  int64_t used = 0;
  const auto place = [&](int64_t n_values, const int32_t*& on_device) {
    assert(used + n_values <= capacity_);
    on_device = device + used;
    int32_t* to = host + used;
    used += n_values;
    return to;
  };
  const int64_t n_tokens = batch.n_tokens();
  std::copy_n(batch.token_ids.begin(), n_tokens, place(n_tokens, token_ids_));
  std::copy_n(batch.positions.begin(), n_tokens, place(n_tokens, positions_));
  std::copy_n(batch.slot_mapping.begin(), n_tokens, place(n_tokens, slot_mapping_));
  int32_t* seq_of_token = place(n_tokens, seq_of_token_);
  for (size_t seq = 0; seq < batch.context_lens.size(); ++seq) {
    std::fill(seq_of_token + batch.query_starts[seq], seq_of_token + batch.query_starts[seq + 1],
              static_cast<int32_t>(seq));
  }
  int32_t* rows = place(static_cast<int64_t>(batch.sample_rows.size()), sample_rows_);
  for (const SampleRow& row : batch.sample_rows)
    *rows++ = row.token_idx;
  table_stride_ = table_stride;
  int32_t* table = place(static_cast<int64_t>(batch.n_seqs()) * table_stride, block_tables_);
  const int n_copied = std::min(table_stride, batch.max_blocks_per_seq);
  for (int seq = 0; seq < batch.n_seqs(); ++seq, table += table_stride) {
    const auto from =
        batch.block_tables.begin() + static_cast<std::ptrdiff_t>(seq) * batch.max_blocks_per_seq;
    std::copy_n(from, n_copied, table);
    std::fill(table + n_copied, table + table_stride, -1);
  }
  stream_.copy_to_device(device_.get(), host_.get(), static_cast<size_t>(used) * sizeof(int32_t));
  stream_.check(cudaEventRecord(copied_, stream_.get()), "recording an event");
}

}  // namespace dsctl::engine::cuda
