// StepInputs: a Batch's arrays in device memory, brought there by one copy a step. Their places
// depend on the step's sizes alone, so a graph finds them again.
#pragma once

#include <cstdint>

#include "engine/batch.h"
#include "engine/cuda/memory.h"
#include "engine/cuda/stream.h"

namespace dsctl::engine::cuda {

class StepInputs {
 public:
  explicit StepInputs(Stream& stream) : stream_(stream) {}
  ~StepInputs();
  StepInputs(const StepInputs&) = delete;
  StepInputs& operator=(const StepInputs&) = delete;

  /// For steps of so many tokens, sequences and sampled rows; a sequence has at most table_stride
  /// blocks.
  void allocate(int max_tokens, int max_seqs, int max_rows, int max_table_stride);

  /// Queues the copy. Block tables get rows of `table_stride` entries.
  void upload(const Batch& batch, int table_stride);

  // On the device.
  const int32_t* token_ids() const { return token_ids_; }        // (n_tokens)
  const int32_t* positions() const { return positions_; }        // (n_tokens)
  const int32_t* slot_mapping() const { return slot_mapping_; }  // (n_tokens)
  const int32_t* seq_of_token() const { return seq_of_token_; }  // (n_tokens)
  const int32_t* sample_rows() const { return sample_rows_; }    // (n_sample_rows)
  const int32_t* block_tables() const { return block_tables_; }  // (n_seqs, table_stride)
  int table_stride() const { return table_stride_; }

 private:
  Stream& stream_;
  int64_t capacity_ = 0;  // of values
  PinnedMemory host_;
  DeviceMemory device_;
  cudaEvent_t copied_ = nullptr;
  const int32_t* token_ids_ = nullptr;
  const int32_t* positions_ = nullptr;
  const int32_t* slot_mapping_ = nullptr;
  const int32_t* seq_of_token_ = nullptr;
  const int32_t* sample_rows_ = nullptr;
  const int32_t* block_tables_ = nullptr;
  int table_stride_ = 0;
};

}  // namespace dsctl::engine::cuda
