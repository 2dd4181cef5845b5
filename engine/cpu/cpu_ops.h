// CpuOps: one rank's operations in host memory. It owns buffers and order; the loops are a
// KernelSet's, the reference's or the fast ones.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/comm/communicator.h"
#include "engine/cpu/host_kv_cache.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/moe.h"
#include "engine/cpu/thread_pool.h"
#include "engine/ops.h"
#include "engine/sampler.h"

namespace dsctl::engine {

struct CpuOpsOptions {
  int n_threads = 1;    // of this rank
  int max_tokens = 0;   // of one step
  int max_rows = 0;     // of logits in one step
  int max_context = 0;  // tokens of one sequence
};

class CpuOps final : public Ops {
 public:
  /// `kernels` and `comm` outlive it.
  CpuOps(const KernelSet& kernels, Communicator& comm, const CpuOpsOptions& options);
  ~CpuOps() override;

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
  std::string device_name() const override;
  bool takes_loras() const override { return true; }
  bool gives_states() const override { return true; }

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
  std::span<const float> states() override { return states_; }
  std::span<const float> logits(int row_idx) override;
  std::vector<SampledToken> sample() override;

 private:
  class Matrix;
  class Heads;
  class Experts;
  struct Vector;
  struct RopeTable {
    Rope rope;
    std::vector<float> cos_sin;  // (max_tokens, n_dims / 2, 2), of the step's positions
  };

  MutableRows rows(Buffer buffer);
  MutableRows rows(Buffer buffer, int first_col, int n_cols);
  /// x += sum over the ranks of W input, where input_ holds the rank's input.
  void add_partial(Buffer x, const WeightMatrix* weight, const WeightVector* bias,
                   const WeightVector* post_norm, float eps);
  /// x += y or x += rmsnorm(y, post_norm), y = sum over the ranks of partial_, + bias.
  void add_reduced(Buffer x, const WeightVector* bias, const WeightVector* post_norm, float eps);
  /// The router's logits and the shared expert, whose output (or zeros) is left in partial_.
  void route_and_share(const MoeFfn& args);
  /// Adds the experts [begin, end) of this rank, for their tokens, to partial_.
  void add_experts(const MoeFfn& args, int begin, int end);
  std::unique_ptr<LinearWeight> make_weight(const MatrixView& view);
  /// Adds to the outputs of the matrix's parts what its adapters say.
  void add_loras(const WeightMatrix* matrix, LinearInput& input,
                 std::span<const LinearOutput> outputs);
  /// The rows of the batch that are kept, ascending.
  void choose_kept_rows();
  /// Copies the rows `from` of a buffer, ascending, to its beginning.
  void gather(Buffer buffer, std::span<const int32_t> from);
  /// Of the rows left, keeps the states that are wanted, then only those that are sampled.
  void take_states(const Head& args);
  void allocate_for_experts();
  void allocate_for_latents(int latent_cols);
  void apply_heads(const WeightMatrix* matrices, const float* x, int n_tokens, float* y);
  /// mla_attention for tokens of one sequence.
  void attend_latents(const MlaAttention& args, int seq, int first_token, int n_tokens);
  /// W input_, parts side by side in `out`.
  void apply(const WeightMatrix* weight, const WeightVector* bias, const MutableRows& out);

  const KernelSet& kernels_;
  Communicator& comm_;
  const CpuOpsOptions options_;
  ThreadPool pool_;
  WeightArena arena_;
  int64_t weight_bytes_ = 0;
  MatrixView table_;  // the embedding's
  int64_t table_bytes_ = 0;
  int64_t max_inputs_ = 1;       // columns of the widest matrix
  int64_t max_ffn_ = 0;          // rows of the largest gate
  int n_heads_ = 0;              // of latent attention
  int64_t max_head_values_ = 0;  // of a token: queries or absorbed queries of all heads
  int64_t max_head_cols_ = 0;
  int max_experts_ = 0;        // of one layer
  int max_local_experts_ = 0;  // of them on this rank
  int max_used_ = 0;           // experts of one token
  int64_t expert_dim_ = 0;     // outputs of an expert

  std::vector<std::vector<float>> buffers_;  // by Buffer::id, (max_tokens, n_cols)
  std::vector<RopeTable> ropes_;             // by RopeId::id
  std::unique_ptr<HostKvCache> kv_cache_;
  std::unique_ptr<LinearInput> input_;
  std::vector<float> gate_;               // (max_tokens, max_ffn)
  std::vector<float> up_;                 // (max_tokens, max_ffn)
  std::vector<float> partial_;            // (max_tokens, dim)
  std::vector<float> attention_scratch_;  // (n_threads, max_context + kAttentionScratch)
  // Adapters only.
  int64_t max_lora_rank_ = 0;
  int64_t max_lora_rows_ = 0;
  std::unique_ptr<LinearInput> lora_input_;
  std::vector<float> lora_low_;  // (max_tokens, max_lora_rank)
  std::vector<float> lora_out_;  // (max_tokens, max_lora_rows)
  // Latent attention only.
  std::unique_ptr<LinearInput> head_input_;
  std::vector<float> latent_;  // (n_heads, kMlaTile, latent_dim) absorbed queries, then results
  std::vector<float> head_values_;  // (n_heads, kMlaTile, nope_dim or value_dim)
  std::vector<float> mla_scratch_;  // (n_threads, mla_scratch_stride)
  int64_t mla_scratch_stride_ = 0;
  // Mixtures of experts only.
  std::unique_ptr<LinearInput> expert_input_;
  std::unique_ptr<ExpertPlan> plan_;
  std::vector<float> router_logits_;   // (max_tokens, n_experts)
  std::vector<float> router_scratch_;  // (n_threads, 2 * n_experts)
  std::vector<int32_t> expert_ids_;    // (max_tokens, n_used)
  std::vector<float> expert_weights_;  // (max_tokens, n_used)
  std::vector<float> expert_out_;      // (expert_rows, dim)
  std::vector<LinearOutput> outputs_;  // of one grouped product
  std::vector<int32_t> group_starts_;
  int expert_rows_ = 0;                 // pairs of token and expert that one pass takes
  std::vector<float> share_logits_;     // (max_rows, this rank's tokens), several ranks only
  std::vector<float> gathered_logits_;  // (max_rows, vocab_size), several ranks only
  std::vector<int64_t> share_bounds_;   // (n_ranks + 1) first token of each rank, likewise
  std::vector<float> logits_;           // (max_rows, vocab_size), rank 0 only
  int vocab_size_ = 0;
  std::vector<Sampler> samplers_;  // one for each thread, rank 0 only

  std::vector<int32_t> kept_rows_;     // of the batch
  std::vector<int32_t> sampled_rows_;  // scratch
  std::vector<float> states_;          // (n_state_rows, dim); grows with the first that are wanted

  const Batch* batch_ = nullptr;
  int n_rows_ = 0;  // of the buffers, at this point of the step
};

}  // namespace dsctl::engine
