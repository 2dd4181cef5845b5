#include "engine/cpu/cpu_ops.h"

#include <algorithm>
#include <cassert>

#include "engine/cpu/cpu_features.h"
#include "engine/cpu/embed.h"
#include "engine/cpu/head.h"
#include "engine/shard.h"

namespace dsctl::engine {

/// One or several weights in the kernels' form; of an embedding table only the view.
class CpuOps::Matrix final : public WeightMatrix {
 public:
  std::vector<std::unique_ptr<LinearWeight>> parts;
  MatrixView table;
};

struct CpuOps::Vector final : public WeightVector {
  std::vector<float> values;

  static const float* data(const WeightVector* vector) {
    return vector != nullptr ? static_cast<const Vector*>(vector)->values.data() : nullptr;
  }
};

CpuOps::CpuOps(const KernelSet& kernels, Communicator& comm, const CpuOpsOptions& options)
    : kernels_(kernels), comm_(comm), options_(options), pool_(options.n_threads) {}

CpuOps::~CpuOps() = default;

std::unique_ptr<const WeightMatrix> CpuOps::load_matrix(std::span<const MatrixView> parts) {
  auto matrix = std::make_unique<Matrix>();
  for (const MatrixView& part : parts) {
    matrix->parts.push_back(kernels_.make_weight(part, arena_));
    const auto owned = static_cast<int64_t>(matrix->parts.back()->owned_bytes());
    const bool is_tied = part.data >= table_.data && part.data < table_.data + table_bytes_;
    if (owned > 0 || !is_tied) {
      weight_bytes_ +=
          owned > 0 ? owned : part.n_rows * gguf::row_size_bytes(part.dtype, part.n_cols);
    }
    max_inputs_ = std::max(max_inputs_, part.n_cols);
  }
  return matrix;
}

std::unique_ptr<const WeightMatrix> CpuOps::load_gate_up(const MatrixView& gate,
                                                         const MatrixView& up) {
  assert(gate.n_rows == up.n_rows && gate.n_cols == up.n_cols);
  max_ffn_ = std::max(max_ffn_, gate.n_rows);
  const MatrixView parts[] = {gate, up};
  return load_matrix(parts);
}

std::unique_ptr<const WeightVector> CpuOps::load_vector(std::span<const float> values) {
  auto vector = std::make_unique<Vector>();
  vector->values.assign(values.begin(), values.end());
  weight_bytes_ += static_cast<int64_t>(values.size_bytes());
  return vector;
}

/// All ranks read the one table of the mapping. A tied head, which lies there too, counts again
/// only where the kernels made a copy of it.
std::unique_ptr<const WeightMatrix> CpuOps::load_embedding(const MatrixView& table) {
  auto matrix = std::make_unique<Matrix>();
  matrix->table = table;
  table_ = table;
  table_bytes_ = table.n_rows * table.row_stride_bytes;
  if (comm_.rank() == 0) weight_bytes_ += table_bytes_;
  return matrix;
}

Buffer CpuOps::new_buffer(int n_cols) {
  buffers_.emplace_back(static_cast<size_t>(options_.max_tokens) * static_cast<size_t>(n_cols));
  return {static_cast<int>(buffers_.size()) - 1, n_cols};
}

RopeId CpuOps::new_rope(const Rope& rope) {
  ropes_.push_back({rope, std::vector<float>(static_cast<size_t>(options_.max_tokens) *
                                             static_cast<size_t>(rope.n_dims))});
  return {static_cast<int>(ropes_.size()) - 1};
}

void CpuOps::finish_loading(const KvLayout& layout, int vocab_size) {
  const auto max_tokens = static_cast<size_t>(options_.max_tokens);
  const auto max_rows = static_cast<size_t>(options_.max_rows);
  const auto vocab = static_cast<size_t>(vocab_size);
  kv_cache_ = std::make_unique<HostKvCache>(layout);
  input_ = kernels_.make_input(options_.max_tokens, max_inputs_, options_.n_threads);
  gate_.resize(max_tokens * static_cast<size_t>(max_ffn_));
  up_.resize(gate_.size());
  size_t widest = 0;
  for (const auto& buffer : buffers_)
    widest = std::max(widest, buffer.size());
  partial_.resize(widest);
  attention_scratch_.resize(static_cast<size_t>(options_.n_threads) *
                            static_cast<size_t>(options_.max_context + kAttentionScratch));
  vocab_size_ = vocab_size;
  if (comm_.size() > 1) {
    const Shard shard{comm_.rank(), comm_.size()};
    share_logits_.resize(max_rows * static_cast<size_t>(shard.split(vocab_size, "tokens").size()));
    gathered_logits_.resize(max_rows * vocab);
    for (int rank = 0; rank < comm_.size(); ++rank)
      share_bounds_.push_back(Shard{rank, comm_.size()}.split(vocab_size, "tokens").begin);
    share_bounds_.push_back(vocab_size);
  }
  if (comm_.rank() == 0) {
    logits_.resize(max_rows * vocab);
    for (int i = 0; i < options_.n_threads; ++i)
      samplers_.emplace_back(vocab_size);
  }
}

std::string CpuOps::device_name() const {
  const int n_threads = options_.n_threads * comm_.size();
  return "CPU (" + kernels_.name() + "), " + std::to_string(n_threads) +
         (n_threads == 1 ? " thread" : " threads") +
         (comm_.size() > 1 ? " in " + std::to_string(comm_.size()) + " ranks" : "");
}

MutableRows CpuOps::rows(Buffer buffer) {
  return rows(buffer, 0, buffer.n_cols);
}

MutableRows CpuOps::rows(Buffer buffer, int first_col, int n_cols) {
  assert(first_col + n_cols <= buffer.n_cols);
  float* data = buffers_[static_cast<size_t>(buffer.id)].data();
  return {data + first_col, buffer.n_cols, n_rows_, n_cols};
}

void CpuOps::apply(const WeightMatrix* weight, const WeightVector* bias, const MutableRows& out) {
  const auto& parts = static_cast<const Matrix*>(weight)->parts;
  constexpr size_t kMaxParts = 4;
  LinearOutput outputs[kMaxParts];
  assert(parts.size() <= kMaxParts);
  int64_t first_col = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const float* values = Vector::data(bias);
    outputs[i] = {parts[i].get(), values != nullptr ? values + first_col : nullptr,
                  out.data + first_col, out.stride};
    first_col += parts[i]->n_rows();
  }
  assert(first_col == out.n_cols);
  kernels_.linear(*input_, {outputs, parts.size()}, pool_);
}

void CpuOps::add_partial(Buffer x, const WeightMatrix* weight, const WeightVector* bias,
                         const WeightVector* post_norm, float eps) {
  const MutableRows sum{partial_.data(), x.n_cols, n_rows_, x.n_cols};
  apply(weight, nullptr, sum);
  comm_.all_reduce({partial_.data(), static_cast<size_t>(n_rows_) * static_cast<size_t>(x.n_cols)});
  kernels_.add({.x = rows(x),
                .y = sum,
                .bias = Vector::data(bias),
                .post_norm = Vector::data(post_norm),
                .eps = eps},
               pool_);
}

void CpuOps::begin(const Batch& batch) {
  assert(batch.n_tokens() <= options_.max_tokens);
  assert(batch.sample_rows.size() <= static_cast<size_t>(options_.max_rows));
  batch_ = &batch;
  n_rows_ = batch.n_tokens();
  for (RopeTable& table : ropes_) {
    pool_.parallel_for(n_rows_, 16, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
      rope_table(table.rope, batch.positions.data() + begin, static_cast<int>(end - begin),
                 table.cos_sin.data() + begin * table.rope.n_dims);
    });
  }
}

void CpuOps::embed(Buffer x, const WeightMatrix& table, float scale) {
  engine::embed(rows(x), static_cast<const Matrix&>(table).table, batch_->token_ids.data(), scale,
                pool_);
}

void CpuOps::norm_linear(const NormLinear& args) {
  input_->assign_rmsnorm(rows(args.x), Vector::data(args.norm), args.eps, pool_);
  apply(args.weight, args.bias, rows(args.out));
}

void CpuOps::rope_store(const RopeStore& args) {
  const HeadShape& heads = args.heads;
  const RopeTable& table = ropes_[static_cast<size_t>(args.rope.id)];
  kernels_.rope_store({.q = rows(args.qkv, 0, heads.q_cols()),
                       .k = rows(args.qkv, heads.q_cols(), heads.kv_cols()),
                       .v = rows(args.qkv, heads.q_cols() + heads.kv_cols(), heads.kv_cols()),
                       .q_norm = Vector::data(args.q_norm),
                       .k_norm = Vector::data(args.k_norm),
                       .norm_eps = args.eps,
                       .style = table.rope.style,
                       .n_dims = table.rope.n_dims,
                       .cos_sin = table.cos_sin.data(),
                       .kv = kv_cache_->layer(args.layer_idx),
                       .n_heads = heads.n_heads,
                       .slot_mapping = batch_->slot_mapping.data()},
                      pool_);
}

void CpuOps::attention(const Attention& args) {
  kernels_.attention({.out = rows(args.out, args.out_col, args.heads.q_cols()),
                      .q = rows(args.qkv, 0, args.heads.q_cols()),
                      .kv = kv_cache_->layer(args.layer_idx),
                      .n_heads = args.heads.n_heads,
                      .scale = args.scale,
                      .softcap = args.softcap,
                      .window = args.window,
                      .positions = batch_->positions.data(),
                      .query_starts = batch_->query_starts.data(),
                      .block_tables = batch_->block_tables.data(),
                      .n_seqs = batch_->n_seqs(),
                      .max_blocks_per_seq = batch_->max_blocks_per_seq,
                      .scratch = attention_scratch_.data(),
                      .scratch_stride = options_.max_context + kAttentionScratch},
                     pool_);
}

/// Sampled rows ascend, so a row moves to a place that has been read already.
void CpuOps::keep_sampled_rows(std::initializer_list<Buffer> buffers) {
  for (const Buffer& buffer : buffers) {
    const MutableRows all = rows(buffer);
    for (size_t i = 0; i < batch_->sample_rows.size(); ++i) {
      const float* from = all.row(batch_->sample_rows[i].token_idx);
      float* to = all.row(static_cast<int64_t>(i));
      if (from != to) std::copy_n(from, buffer.n_cols, to);
    }
  }
  n_rows_ = static_cast<int>(batch_->sample_rows.size());
}

void CpuOps::linear_add(const LinearAdd& args) {
  if (n_rows_ == 0) return;
  input_->assign(rows(args.input), pool_);
  add_partial(args.x, args.weight, args.bias, args.post_norm, args.eps);
}

void CpuOps::gated_ffn(const GatedFfn& args) {
  if (n_rows_ == 0) return;
  const auto& parts = static_cast<const Matrix*>(args.gate_up)->parts;
  const int ffn_dim = static_cast<int>(parts[0]->n_rows());
  const LinearOutput outputs[] = {{parts[0].get(), nullptr, gate_.data(), ffn_dim},
                                  {parts[1].get(), nullptr, up_.data(), ffn_dim}};
  input_->assign_rmsnorm(rows(args.x), Vector::data(args.norm), args.eps, pool_);
  kernels_.linear(*input_, outputs, pool_);
  input_->assign_gated({gate_.data(), ffn_dim, n_rows_, ffn_dim},
                       {up_.data(), ffn_dim, n_rows_, ffn_dim}, args.activation, pool_);
  add_partial(args.x, args.down, nullptr, args.post_norm, args.eps);
}

void CpuOps::head(const Head& args) {
  if (n_rows_ == 0) return;
  input_->assign_rmsnorm(rows(args.x), Vector::data(args.norm), args.eps, pool_);
  const int n_share = static_cast<int>(static_cast<const Matrix*>(args.weight)->parts[0]->n_rows());
  const bool alone = comm_.size() == 1;
  const MutableRows share{alone ? logits_.data() : share_logits_.data(), n_share, n_rows_, n_share};
  apply(args.weight, nullptr, share);
  if (args.softcap > 0.0f) soft_cap(share, args.softcap, pool_);
  if (alone) return;

  const auto n_share_values = static_cast<size_t>(n_rows_) * static_cast<size_t>(n_share);
  const auto n_values = static_cast<size_t>(n_rows_) * static_cast<size_t>(vocab_size_);
  comm_.all_gather({share_logits_.data(), n_share_values}, {gathered_logits_.data(), n_values});
  if (comm_.rank() != 0) return;
  join_shares({logits_.data(), vocab_size_, n_rows_, vocab_size_}, gathered_logits_.data(),
              share_bounds_.data(), comm_.size());
}

std::span<const float> CpuOps::logits(int row_idx) {
  assert(comm_.rank() == 0 && row_idx >= 0 && row_idx < n_rows_);
  const auto vocab = static_cast<size_t>(vocab_size_);
  return {logits_.data() + static_cast<size_t>(row_idx) * vocab, vocab};
}

std::vector<SampledToken> CpuOps::sample() {
  assert(comm_.rank() == 0);
  const auto vocab = static_cast<size_t>(vocab_size_);
  std::vector<SampledToken> tokens(batch_->sample_rows.size());
  pool_.parallel_for(n_rows_, 1, [&](int64_t begin, int64_t end, int thread_idx) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      const std::span<float> logits(logits_.data() + i * vocab, vocab);
      tokens[i] = samplers_[static_cast<size_t>(thread_idx)].sample(logits, batch_->sample_rows[i]);
    }
  });
  return tokens;
}

}  // namespace dsctl::engine
