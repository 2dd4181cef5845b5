// CudaOps: one GPU's operations. It owns weights, buffers and pages on the device and the order of
// the kernels of a step; a step of decode is captured once for each size as a CUDA graph and then
// replayed: everything that changes from step to step lies in device memory.
#pragma once

#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/cuda/kernels.h"
#include "engine/cuda/memory.h"
#include "engine/cuda/step_inputs.h"
#include "engine/cuda/stream.h"
#include "engine/cuda/upload.h"
#include "engine/ops.h"
#include "engine/sampler.h"

namespace dsctl::engine {

struct CudaOpsOptions {
  int device_idx = 0;
  int max_tokens = 0;   // of one step
  int max_rows = 0;     // of logits in one step, and sequences
  int max_context = 0;  // tokens of one sequence
  cuda::StreamOptions stream;
  bool use_graphs = true;
  /// Tiled weights meet 16-bit inputs; false: 8-bit ones, with one more matrix product's error
  /// each.
  bool exact_inputs = true;
  /// Device memory is taken in chunks of so many bytes.
  int64_t arena_chunk_bytes = int64_t{256} << 20;
};

class CudaOps final : public Ops {
 public:
  /// Throws Error when the device can't be used.
  explicit CudaOps(const CudaOpsOptions& options);
  ~CudaOps() override;

  std::unique_ptr<const WeightMatrix> load_matrix(std::span<const MatrixView> parts) override;
  std::unique_ptr<const WeightMatrix> load_gate_up(const MatrixView& gate,
                                                   const MatrixView& up) override;
  std::unique_ptr<const WeightMatrix> load_heads(const MatrixStack& matrices,
                                                 HeadProduct product) override;
  std::unique_ptr<const WeightMatrix> load_experts(const ExpertViews& experts) override;
  std::unique_ptr<const WeightVector> load_vector(std::span<const float> values) override;
  std::unique_ptr<const WeightMatrix> load_embedding(const MatrixView& table) override;
  Buffer new_buffer(int n_cols) override;
  RopeId new_rope(const Rope& rope) override;
  void finish_loading(const KvLayout& layout, int vocab_size) override;
  int64_t weight_bytes() const override { return weight_bytes_; }
  std::string device_name() const override { return device_name_; }
  bool alive() const override { return stream_.alive(); }

  void begin(const Batch& batch) override;
  void embed(Buffer x, const WeightMatrix& table, float scale) override;
  void norm_linear(const NormLinear& args) override;
  void rope_store(const RopeStore& args) override;
  void attention(const Attention& args) override;
  void mla_store(const MlaStore& args) override;
  void mla_attention(const MlaAttention& args) override;
  void keep_sampled_rows(std::initializer_list<Buffer> buffers) override;
  void linear_add(const LinearAdd& args) override;
  void gated_ffn(const GatedFfn& args) override;
  void moe_ffn(const MoeFfn& args) override;
  void head(const Head& args) override;
  std::span<const float> logits(int row_idx) override;
  std::vector<SampledToken> sample() override;

  // For tests and benchmarks, between the operations of a step without a graph, or before it.

  /// The buffer's rows of the step, (rows, n_cols).
  std::vector<float> read_buffer(Buffer buffer);
  void write_buffer(Buffer buffer, std::span<const float> values);
  /// Steps that replayed a graph so far.
  int64_t n_replays() const { return n_replays_; }
  /// Waits until the step is done.
  void synchronize() { stream_.synchronize(); }
  /// See Stream::take_profile.
  std::map<std::string, cuda::KernelTime> take_profile() { return stream_.take_profile(); }

 private:
  class Matrix;
  struct Vector;
  struct RopeTable;
  /// What a graph was captured for.
  struct GraphKey {
    int n_tokens = 0;
    int n_splits = 0;
    auto operator<=>(const GraphKey&) const = default;
  };
  /// A captured step: the calls that it stands for, in their order.
  struct Graph {
    cudaGraphExec_t exec = nullptr;
    std::vector<uint64_t> calls;
  };
  enum class Mode { kDirect, kCapture, kReplay };

  float* data(Buffer buffer) const;
  cuda::DeviceKvPages pages(int layer_idx) const;
  /// Enters an operation. True when its kernels are to be queued, false in a replayed step.
  /// `call_hash` tells calls apart.
  bool enter(const char* operation, int layer_idx, uint64_t call_hash);
  void end_graph();
  /// Makes the input of `matrix` in the forms that its parts read.
  void prepare(const Matrix& matrix, cuda::InputArgs args);
  /// The product with what prepare() made; `outputs` one for each part.
  void multiply(const Matrix& matrix, std::span<const cuda::OutputArgs> outputs);
  void add_product(Buffer x, const Matrix& matrix, const WeightVector* bias,
                   const WeightVector* post_norm, float eps);
  bool is_greedy(const SampleRow& row) const;

  const CudaOpsOptions options_;
  std::string device_name_;
  cuda::Stream stream_;
  cuda::DeviceArena arena_;
  cuda::Uploader uploader_;
  cuda::StepInputs inputs_;
  int64_t weight_bytes_ = 0;
  int64_t max_cols_ = 1;  // of all matrices
  int64_t max_ffn_ = 0;   // rows of the largest gate
  int max_heads_ = 0;
  const gguf::IqGrids* grids_ = nullptr;  // on the device

  std::vector<Buffer> buffers_;
  std::vector<float*> buffer_data_;  // by Buffer::id, (max_tokens, n_cols)
  std::vector<RopeTable> ropes_;     // by RopeId::id
  KvLayout layout_;
  std::byte* kv_pages_ = nullptr;  // (n_layers, 2, n_blocks, n_kv_heads, block_size, head_dim)
  float* input_values_ = nullptr;  // (max_tokens, input_stride_)
  int64_t input_stride_ = 0;
  cuda::ActivationTile* input_tiles_ = nullptr;  // (max_tokens, tile_stride_)
  int64_t tile_stride_ = 0;
  /// Where the f32 form of the current input lies: in input_values_ or in a buffer.
  const float* current_values_ = nullptr;
  int64_t current_stride_ = 0;
  float* gate_ = nullptr;               // (max_tokens, max_ffn)
  float* up_ = nullptr;                 // (max_tokens, max_ffn)
  float* branch_ = nullptr;             // (max_tokens, dim)
  float* attention_partial_ = nullptr;  // (attention_tokens_, n_heads, splits, head_dim + 2)
  int attention_tokens_ = 0;            // of one launch
  int max_splits_ = 0;
  float* logits_ = nullptr;         // (max_rows, vocab_size)
  cuda::Best* best_ = nullptr;      // (max_rows)
  cuda::PinnedMemory host_logits_;  // (max_rows, vocab_size)
  cuda::PinnedMemory host_best_;    // (max_rows)
  int vocab_size_ = 0;
  std::unique_ptr<Sampler> sampler_;

  const Batch* batch_ = nullptr;
  int n_rows_ = 0;    // of the buffers, at this point of the step
  int n_splits_ = 0;  // of attention in this step, rounded up so that graphs are few
  Mode mode_ = Mode::kDirect;
  std::map<GraphKey, Graph> graphs_;
  Graph* graph_ = nullptr;  // of the step, in kCapture and kReplay
  size_t n_calls_ = 0;      // of the step so far
  int64_t n_replays_ = 0;
};

}  // namespace dsctl::engine
