// Ops: the dozen operations that a transformer step is made of, at the grain at which a GPU wants
// them fused. A model's forward pass is written once in these terms; a device implements each.
//
// Error bounds, for CUDA and for the fast CPU kernels against the reference in engine/cpu, on equal
// inputs: nmse = sum((y - reference)^2) / sum(reference^2) over one call's outputs. With F32, F16
// and BF16 weights, and wherever no weight takes part, 1e-10; with quantised weights, where kernels
// may quantise the input in blocks of 32 or 256 values to 8 bits as well, 5e-4 for each matrix in
// the chain. (A value of N(0, s) in a block of 32 is rounded with nmse 2e-5, of 256 with 4e-5;
// outliers cost up to ten times that.)
//
// Every implementation: the same batch gives the same bits, and a token's outputs are the same bits
// whatever else is in the batch, however its prompt was cut into chunks and whichever KV blocks it
// has. Ranks of a tensor-parallel group hold the same bits in every replicated activation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/batch.h"
#include "engine/kv_cache.h"
#include "engine/rope.h"
#include "engine/tensor.h"

namespace dsctl::engine {

/// A matrix, or several applied to one input, in the form in which the Ops that made it reads it.
class WeightMatrix {
 public:
  virtual ~WeightMatrix() = default;
};

/// f32 values: a norm's weight or a bias.
class WeightVector {
 public:
  virtual ~WeightVector() = default;
};

/// A buffer of activations on the device: (rows of the step, n_cols). Made once, for the largest
/// step, with zeros.
struct Buffer {
  int id = -1;
  int n_cols = 0;
};

/// A rope registered with new_rope.
struct RopeId {
  int id = -1;
};

/// This rank's heads. Projections lie side by side in one row of (n_heads + 2 n_kv_heads) *
/// head_dim values: queries, keys, values.
struct HeadShape {
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;

  int q_cols() const { return n_heads * head_dim; }
  int kv_cols() const { return n_kv_heads * head_dim; }
  int qkv_cols() const { return q_cols() + 2 * kv_cols(); }
};

/// out = [W_0 h | W_1 h | ...] + bias with h = rmsnorm(x, norm).
struct NormLinear {
  Buffer out;                            // (rows, outputs of all parts)
  Buffer x;                              // (rows, dim)
  const WeightVector* norm = nullptr;    // (dim)
  const WeightMatrix* weight = nullptr;  // parts of (outputs, dim)
  const WeightVector* bias = nullptr;    // (outputs of all parts) or null
  float eps = 0.0f;
};

/// Per head: q = rope(rmsnorm(q, q_norm)), k likewise, in place; k and v go to the cache slots of
/// batch.slot_mapping.
struct RopeStore {
  Buffer qkv;  // (rows, heads.qkv_cols())
  HeadShape heads;
  int layer_idx = 0;
  const WeightVector* q_norm = nullptr;  // (head_dim) or null
  const WeightVector* k_norm = nullptr;  // (head_dim) or null
  float eps = 0.0f;
  RopeId rope;
};

/// out[out_col + h * head_dim ...] = sum over the context of softmax(scale q_h . k) v. The other
/// columns of out are left alone.
struct Attention {
  Buffer out;  // (rows, >= out_col + heads.q_cols())
  Buffer qkv;  // (rows, heads.qkv_cols()), after rope_store
  HeadShape heads;
  int layer_idx = 0;
  int out_col = 0;
  float scale = 1.0f;
  float softcap = 0.0f;  // c: scores become c * tanh(score / c); 0: off
  int window = 0;        // a query attends to so many positions, its own included; 0: all
};

/// x += y, or x += rmsnorm(y, post_norm), with y = sum over the ranks of W input, + bias.
struct LinearAdd {
  Buffer x;                                 // (rows, dim), replicated
  Buffer input;                             // (rows, this rank's inputs of W)
  const WeightMatrix* weight = nullptr;     // (dim, this rank's inputs)
  const WeightVector* bias = nullptr;       // (dim) or null
  const WeightVector* post_norm = nullptr;  // (dim) or null
  float eps = 0.0f;
};

/// x += f, or x += rmsnorm(f, post_norm), with h = rmsnorm(x, norm),
/// f = sum over the ranks of down (activation(gate h) * (up h)).
struct GatedFfn {
  Buffer x;                                 // (rows, dim), replicated
  const WeightVector* norm = nullptr;       // (dim)
  const WeightMatrix* gate_up = nullptr;    // load_gate_up of two (this rank's ffn_dim, dim)
  const WeightMatrix* down = nullptr;       // (dim, this rank's ffn_dim)
  const WeightVector* post_norm = nullptr;  // (dim) or null
  Activation activation = Activation::kSilu;
  float eps = 0.0f;
};

/// logits = W rmsnorm(x, norm), then c * tanh(logits / c) when softcap is given. W's rows are this
/// rank's share of the vocabulary; rank 0 gets the shares of all, in rank order.
struct Head {
  Buffer x;                              // (wanted rows, dim), replicated
  const WeightVector* norm = nullptr;    // (dim)
  const WeightMatrix* weight = nullptr;  // (this rank's tokens, dim)
  float softcap = 0.0f;                  // 0: off
  float eps = 0.0f;
};

/// One rank's operations. One thread at a time.
class Ops {
 public:
  virtual ~Ops() = default;

  // Loading. Views lie in the model file's mapping, which outlives the Ops; weights outlive their
  // use, not the Ops. After finish_loading nothing is allocated any more.

  /// A matrix of one or more parts (one below the other, each with its own type).
  virtual std::unique_ptr<const WeightMatrix> load_matrix(std::span<const MatrixView> parts) = 0;
  /// The two parts of gated_ffn, of one shape: a GPU lays their rows side by side.
  virtual std::unique_ptr<const WeightMatrix> load_gate_up(const MatrixView& gate,
                                                           const MatrixView& up) = 0;
  virtual std::unique_ptr<const WeightVector> load_vector(std::span<const float> values) = 0;
  /// The embedding table: rows are read one by one.
  virtual std::unique_ptr<const WeightMatrix> load_embedding(const MatrixView& table) = 0;
  virtual Buffer new_buffer(int n_cols) = 0;
  virtual RopeId new_rope(const Rope& rope) = 0;
  /// Allocates the KV pages and scratch memory. `vocab_size` is of all ranks together.
  virtual void finish_loading(const KvLayout& layout, int vocab_size) = 0;
  /// Bytes of the weights loaded so far: of their form on the device, or of the mapping where they
  /// are used in place.
  virtual int64_t weight_bytes() const = 0;
  virtual std::string device_name() const = 0;  // "CPU (AVX-512 VNNI), 2 threads"

  // A step. begin first; then rows are the batch's tokens, until keep_sampled_rows.

  /// Takes over `batch`, which lives until the step's end.
  virtual void begin(const Batch& batch) = 0;
  /// x = table[token] * scale.
  virtual void embed(Buffer x, const WeightMatrix& table, float scale) = 0;
  virtual void norm_linear(const NormLinear& args) = 0;
  virtual void rope_store(const RopeStore& args) = 0;
  virtual void attention(const Attention& args) = 0;
  /// From here on rows are only those of batch.sample_rows, in their order: what the last layer
  /// does after its attention is wanted for no others. `buffers` are those that are still read.
  virtual void keep_sampled_rows(std::initializer_list<Buffer> buffers) = 0;
  virtual void linear_add(const LinearAdd& args) = 0;
  virtual void gated_ffn(const GatedFfn& args) = 0;
  virtual void head(const Head& args) = 0;

  // After head, on rank 0.

  /// The logits of batch.sample_rows[row_idx]: (vocab_size) f32 in host memory, until the next
  /// step or sample().
  virtual std::span<const float> logits(int row_idx) = 0;
  /// One token for each of batch.sample_rows, in their order. May change the logits.
  virtual std::vector<SampledToken> sample() = 0;
};

}  // namespace dsctl::engine
