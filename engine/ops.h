// Ops: the dozen operations that a transformer step is made of, at the grain at which a GPU wants
// them fused. A model's forward pass is written once in these terms; a device implements each.
//
// Error bounds, for CUDA and for the fast CPU kernels against the reference in engine/cpu, on equal
// inputs: nmse = sum((y - reference)^2) / sum(reference^2) over one call's outputs. With F32, F16
// and BF16 weights, and wherever no weight takes part, 1e-10; with quantised weights, for each
// matrix in the chain, 1e-8 where kernels quantise the input to 16 bits as well (the CPU's), 5e-4
// where to 8 bits, in blocks of 32 or 256 values. (A value of N(0, s) in a block of 32 is rounded
// to 8 bits with nmse 2e-5, to 16 bits with 4e-10; outliers cost up to ten times that.)
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
#include "engine/routing.h"
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

/// Multi-head latent attention (DeepSeek-V2), this rank's heads. A token's query row holds for each
/// head nope_dim values that stay and rope_dim that are rotated. Of a token the cache keeps one row
/// for all heads: latent_dim values, the compressed key and value, then the rotated key's rope_dim.
/// Head h's key is [W_k,h latent | rotated key], its value W_v,h latent.
struct MlaShape {
  int n_heads = 0;
  int nope_dim = 0;
  int rope_dim = 0;
  int latent_dim = 0;
  int value_dim = 0;

  int q_cols() const { return n_heads * (nope_dim + rope_dim); }
  int latent_cols() const { return latent_dim + rope_dim; }  // of a row of the cache
  int out_cols() const { return n_heads * value_dim; }
};

/// out = [W_0 h | W_1 h | ...] + bias with h = rmsnorm(x, norm).
struct NormLinear {
  Buffer out;                            // (rows, outputs of all parts)
  Buffer x;                              // (rows, >= x_cols)
  int x_cols = 0;                        // dim, where x is wider: its first columns; 0: all
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

/// Per head: the last rope_dim values of q are rotated in place. Of kv's columns from kv_col on,
/// the latent is normalised, the shared key rotated; both go to the cache slots of
/// batch.slot_mapping.
struct MlaStore {
  Buffer q;        // (rows, >= shape.q_cols()), queries in its first columns
  Buffer kv;       // (rows, >= kv_col + shape.latent_cols()), may be q; scratch afterwards
  int kv_col = 0;  // latent, then key
  MlaShape shape;
  int layer_idx = 0;
  const WeightVector* norm = nullptr;  // (latent_dim)
  float eps = 0.0f;
  RopeId rope;
};

/// out[out_col + h * value_dim ...] = W_v,h z_h with z_h = sum over the context of softmax(scale s)
/// latent, s = (W_k,h^T q_nope,h) . latent + q_rope,h . key: the absorbed form, which never makes a
/// head's keys and values, in prefill as in decode, so that a prompt's cutting does not show in the
/// bits. (A form that does makes three times fewer products for long chunks; an implementation may
/// take it where it keeps the promise above.) The other columns of out are left alone.
struct MlaAttention {
  Buffer out;  // (rows, >= out_col + shape.out_cols())
  Buffer q;    // (rows, >= shape.q_cols()), after mla_store
  MlaShape shape;
  int layer_idx = 0;
  int out_col = 0;
  float scale = 1.0f;
  const WeightMatrix* k_up = nullptr;  // load_heads: W_k^T, (latent_dim, nope_dim) a head
  const WeightMatrix* v_up = nullptr;  // load_heads: W_v, (value_dim, latent_dim) a head
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

/// How a stack of matrices is applied, one for each head: y_h = W_h x_h, or y_h = W_h^T x_h for the
/// files that keep the other orientation (attn_kv_b).
enum class HeadProduct { kPlain, kTransposed };

/// This rank's part of a layer's experts: whole ones, or of each the same columns of the
/// feed-forward network.
struct ExpertViews {
  MatrixStack gate;      // (ffn_dim, dim) each
  MatrixStack up;        // (ffn_dim, dim) each
  MatrixStack down;      // (dim, ffn_dim) each
  int first_expert = 0;  // the stacks' first one, of all the layer's
  Routing routing;       // how the layer's tokens choose
};

/// x += sum over the ranks of (shared(h) + sum over the chosen experts e of weight_e expert_e(h)),
/// with h = rmsnorm(x, norm), weights and choice by the experts' routing from router h, and
/// expert(h) = down (activation(gate h) * (up h)). A token's experts are added to the shared one
/// in ascending order. Every rank routes for itself, from the same bits.
struct MoeFfn {
  Buffer x;                                      // (rows, dim), replicated
  const WeightVector* norm = nullptr;            // (dim)
  const WeightMatrix* router = nullptr;          // (n_experts, dim), replicated
  const WeightVector* router_bias = nullptr;     // (n_experts) or null
  const WeightMatrix* experts = nullptr;         // load_experts
  const WeightMatrix* shared_gate_up = nullptr;  // load_gate_up of (shared ffn_dim, dim), or null
  const WeightMatrix* shared_down = nullptr;     // (dim, shared ffn_dim), or null
  Activation activation = Activation::kSilu;
  float eps = 0.0f;
};

/// Of the rows of batch.state_rows rmsnorm(x, norm) is kept for states(). Of those of
/// batch.sample_rows logits = W rmsnorm(x, norm), then c * tanh(logits / c) when softcap is given.
/// W's rows are this rank's share of the vocabulary; rank 0 gets the shares of all, in rank order.
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
  /// One matrix for each of this rank's heads.
  virtual std::unique_ptr<const WeightMatrix> load_heads(const MatrixStack& matrices,
                                                         HeadProduct product) = 0;
  virtual std::unique_ptr<const WeightMatrix> load_experts(const ExpertViews& experts) = 0;
  virtual std::unique_ptr<const WeightVector> load_vector(std::span<const float> values) = 0;
  /// The embedding table: rows are read one by one.
  virtual std::unique_ptr<const WeightMatrix> load_embedding(const MatrixView& table) = 0;
  virtual Buffer new_buffer(int n_cols) = 0;
  virtual RopeId new_rope(const Rope& rope) = 0;
  /// Allocates the KV pages and scratch memory. `vocab_size` is of all ranks together.
  virtual void finish_loading(const KvLayout& layout, int vocab_size) = 0;
  /// Whether load_matrix and load_gate_up take MatrixView::loras.
  virtual bool takes_loras() const { return false; }
  /// Whether batches may have state_rows.
  virtual bool gives_states() const { return false; }
  /// Bytes of the weights loaded so far: of their form on the device, or of the mapping where they
  /// are used in place.
  virtual int64_t weight_bytes() const = 0;
  virtual std::string device_name() const = 0;  // "CPU (AVX-512 VNNI), 2 threads"
  /// False once the device is lost: every later call throws.
  virtual bool alive() const { return true; }

  // A step. begin first; then rows are the batch's tokens, until keep_sampled_rows.

  /// Takes over `batch`, which lives until the step's end.
  virtual void begin(const Batch& batch) = 0;
  /// x = table[token] * scale.
  virtual void embed(Buffer x, const WeightMatrix& table, float scale) = 0;
  virtual void norm_linear(const NormLinear& args) = 0;
  virtual void rope_store(const RopeStore& args) = 0;
  virtual void attention(const Attention& args) = 0;
  virtual void mla_store(const MlaStore& args) = 0;
  virtual void mla_attention(const MlaAttention& args) = 0;
  /// From here on rows are only those of batch.sample_rows and batch.state_rows, ascending: what
  /// the last layer does after its attention is wanted for no others. `buffers` are those that are
  /// still read.
  virtual void keep_sampled_rows(std::initializer_list<Buffer> buffers) = 0;
  virtual void linear_add(const LinearAdd& args) = 0;
  virtual void gated_ffn(const GatedFfn& args) = 0;
  virtual void moe_ffn(const MoeFfn& args) = 0;
  virtual void head(const Head& args) = 0;

  // After head, on rank 0.

  /// rmsnorm(x, norm) of batch.state_rows, as head() saw it: (n_state_rows, dim) f32 in host
  /// memory, until the next step. Only where gives_states().
  virtual std::span<const float> states() { return {}; }
  /// The logits of batch.sample_rows[row_idx]: (vocab_size) f32 in host memory, until the next
  /// step or sample().
  virtual std::span<const float> logits(int row_idx) = 0;
  /// One token for each of batch.sample_rows, in their order. May change the logits.
  virtual std::vector<SampledToken> sample() = 0;
};

}  // namespace dsctl::engine
