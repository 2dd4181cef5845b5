#include "engine/cpu/cpu_ops.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <iterator>

#include "engine/cpu/cpu_features.h"
#include "engine/cpu/embed.h"
#include "engine/cpu/head.h"
#include "engine/cpu/norm.h"
#include "engine/shard.h"
#include "gguf/quants/all.h"
#include "gguf/quants/half.h"

namespace dsctl::engine {
namespace {

/// Tokens whose absorbed queries are held at once.
constexpr int kMlaTile = 64;

/// The transposed matrix, in `bytes`: f16 holds what quantised values are to 2^-11, at half of
/// f32's size; f32 stays what it is.
MatrixView turn_over(const MatrixView& matrix, std::vector<std::byte>& bytes) {
  const bool is_exact = gguf::dtype_info(matrix.dtype).block_elems == 1;
  const gguf::DType dtype = is_exact ? gguf::DType::F32 : gguf::DType::F16;
  const int64_t row_bytes = gguf::row_size_bytes(dtype, matrix.n_rows);
  bytes.resize(static_cast<size_t>(matrix.n_cols * row_bytes));
  std::vector<float> row(static_cast<size_t>(matrix.n_cols));
  for (int64_t r = 0; r < matrix.n_rows; ++r) {
    gguf::dequantize_row(matrix.dtype, matrix.row(r), row.data(), matrix.n_cols);
    for (int64_t c = 0; c < matrix.n_cols; ++c) {
      std::byte* to = bytes.data() + c * row_bytes;
      const float value = row[static_cast<size_t>(c)];
      if (is_exact) {
        std::memcpy(to + r * 4, &value, 4);
      } else {
        const uint16_t half = gguf::float_to_half(value);
        std::memcpy(to + r * 2, &half, 2);
      }
    }
  }
  return {.dtype = dtype,
          .n_rows = matrix.n_cols,
          .n_cols = matrix.n_rows,
          .data = bytes.data(),
          .row_stride_bytes = row_bytes};
}

}  // namespace

/// One or several weights in the kernels' form; of an embedding table only the view.
class CpuOps::Matrix final : public WeightMatrix {
 public:
  /// y += scale b (a x) for one of the parts.
  struct Lora {
    size_t part = 0;
    std::unique_ptr<LinearWeight> a;
    std::unique_ptr<LinearWeight> b;
    float scale = 1.0f;
  };
  std::vector<Lora> loras;
  std::vector<std::unique_ptr<LinearWeight>> parts;
  MatrixView table;
};

/// One matrix for each head.
class CpuOps::Heads final : public WeightMatrix {
 public:
  std::vector<std::unique_ptr<LinearWeight>> weights;
  /// Matrices turned over, where the weights read them in place.
  std::vector<std::vector<std::byte>> turned;
};

/// A layer's experts, those of this rank.
class CpuOps::Experts final : public WeightMatrix {
 public:
  struct Expert {
    std::unique_ptr<LinearWeight> gate;
    std::unique_ptr<LinearWeight> up;
    std::unique_ptr<LinearWeight> down;
  };
  std::vector<Expert> experts;
  int first_expert = 0;
  Routing routing;
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
    for (int i = 0; i < part.n_loras; ++i) {
      const LoraView& lora = part.loras[i];
      matrix->loras.push_back(
          {matrix->parts.size(), make_weight(lora.a), make_weight(lora.b), lora.scale});
      max_lora_rank_ = std::max(max_lora_rank_, lora.a.n_rows);
      max_lora_rows_ = std::max(max_lora_rows_, lora.b.n_rows);
    }
    matrix->parts.push_back(make_weight(part));
  }
  return matrix;
}

void CpuOps::add_loras(const WeightMatrix* matrix, LinearInput& input,
                       std::span<const LinearOutput> outputs) {
  for (const Matrix::Lora& lora : static_cast<const Matrix*>(matrix)->loras) {
    const int rank = static_cast<int>(lora.a->n_rows());
    const int n_rows = static_cast<int>(lora.b->n_rows());
    const LinearOutput low{lora.a.get(), nullptr, lora_low_.data(), rank};
    kernels_.linear(input, {&low, 1}, pool_);
    lora_input_->assign({lora_low_.data(), rank, n_rows_, rank}, pool_);
    const LinearOutput addition{lora.b.get(), nullptr, lora_out_.data(), n_rows};
    kernels_.linear(*lora_input_, {&addition, 1}, pool_);
    const LinearOutput& output = outputs[lora.part];
    pool_.parallel_for(n_rows_, 4, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
      for (int64_t t = begin; t < end; ++t) {
        float* y = output.y + t * output.y_stride;
        const float* more = lora_out_.data() + t * n_rows;
        for (int i = 0; i < n_rows; ++i)
          y[i] += lora.scale * more[i];
      }
    });
  }
}

std::unique_ptr<LinearWeight> CpuOps::make_weight(const MatrixView& view) {
  auto weight = kernels_.make_weight(view, arena_);
  const auto owned = static_cast<int64_t>(weight->owned_bytes());
  const bool is_tied = view.data >= table_.data && view.data < table_.data + table_bytes_;
  if (owned > 0) {
    weight_bytes_ += owned;
  } else if (!is_tied) {
    weight_bytes_ += view.n_rows * gguf::row_size_bytes(view.dtype, view.n_cols);
  }
  max_inputs_ = std::max(max_inputs_, view.n_cols);
  return weight;
}

std::unique_ptr<const WeightMatrix> CpuOps::load_heads(const MatrixStack& matrices,
                                                       HeadProduct product) {
  auto heads = std::make_unique<Heads>();
  for (int i = 0; i < matrices.n_matrices; ++i) {
    if (product == HeadProduct::kPlain) {
      heads->weights.push_back(make_weight(matrices[i]));
      continue;
    }
    std::vector<std::byte> bytes;
    heads->weights.push_back(make_weight(turn_over(matrices[i], bytes)));
    if (heads->weights.back()->owned_bytes() == 0) heads->turned.push_back(std::move(bytes));
  }
  const LinearWeight& first = *heads->weights.front();
  max_head_values_ =
      std::max(max_head_values_, matrices.n_matrices * std::max(first.n_rows(), first.n_cols()));
  max_head_cols_ = std::max(max_head_cols_, first.n_cols());
  n_heads_ = std::max(n_heads_, matrices.n_matrices);
  return heads;
}

std::unique_ptr<const WeightMatrix> CpuOps::load_experts(const ExpertViews& views) {
  assert(views.gate.n_matrices == views.up.n_matrices);
  assert(views.gate.n_matrices == views.down.n_matrices);
  auto experts = std::make_unique<Experts>();
  experts->first_expert = views.first_expert;
  experts->routing = views.routing;
  for (int i = 0; i < views.gate.n_matrices; ++i) {
    experts->experts.push_back(
        {make_weight(views.gate[i]), make_weight(views.up[i]), make_weight(views.down[i])});
  }
  max_ffn_ = std::max(max_ffn_, views.gate.first.n_rows);
  max_local_experts_ = std::max(max_local_experts_, views.gate.n_matrices);
  max_experts_ = std::max(max_experts_, views.routing.n_experts);
  max_used_ = std::max(max_used_, views.routing.n_used);
  expert_dim_ = views.down.first.n_rows;
  return experts;
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
  gate_.resize(std::max(max_tokens, static_cast<size_t>(max_used_)) *
               static_cast<size_t>(max_ffn_));
  up_.resize(gate_.size());
  if (max_experts_ > 0) allocate_for_experts();
  if (max_lora_rank_ > 0) {
    lora_input_ = kernels_.make_input(options_.max_tokens, max_lora_rank_, options_.n_threads);
    lora_low_.resize(max_tokens * static_cast<size_t>(max_lora_rank_));
    lora_out_.resize(max_tokens * static_cast<size_t>(max_lora_rows_));
  }
  if (n_heads_ > 0) allocate_for_latents(layout.shape.latent_dim);
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

void CpuOps::allocate_for_latents(int latent_cols) {
  const int n_tokens = std::min(options_.max_tokens, kMlaTile);
  head_input_ = kernels_.make_input(n_tokens * n_heads_, max_head_cols_, options_.n_threads);
  latent_.resize(static_cast<size_t>(n_tokens) * static_cast<size_t>(max_head_values_));
  head_values_.resize(latent_.size());
  mla_scratch_stride_ = mla_scratch_size(latent_cols, options_.max_context);
  mla_scratch_.resize(static_cast<size_t>(options_.n_threads) *
                      static_cast<size_t>(mla_scratch_stride_));
  outputs_.reserve(static_cast<size_t>(n_heads_));
  group_starts_.reserve(static_cast<size_t>(n_heads_) + 1);
}

void CpuOps::allocate_for_experts() {
  const auto max_tokens = static_cast<size_t>(options_.max_tokens);
  const auto n_experts = static_cast<size_t>(max_experts_);
  // One pass takes a whole expert, which all tokens may have chosen, or all experts of one token.
  expert_rows_ = std::max(options_.max_tokens, max_used_);
  expert_input_ = kernels_.make_input(expert_rows_, max_inputs_, options_.n_threads);
  plan_ = std::make_unique<ExpertPlan>(options_.max_tokens, max_used_, max_local_experts_);
  router_logits_.resize(max_tokens * n_experts);
  router_scratch_.resize(static_cast<size_t>(options_.n_threads) * 2 * n_experts);
  expert_ids_.resize(max_tokens * static_cast<size_t>(max_used_));
  expert_weights_.resize(expert_ids_.size());
  expert_out_.resize(static_cast<size_t>(expert_rows_) * static_cast<size_t>(expert_dim_));
  outputs_.reserve(2 * static_cast<size_t>(max_local_experts_) + 3);
  group_starts_.reserve(static_cast<size_t>(max_local_experts_) + 1);
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
  add_loras(weight, *input_, {outputs, parts.size()});
}

void CpuOps::add_partial(Buffer x, const WeightMatrix* weight, const WeightVector* bias,
                         const WeightVector* post_norm, float eps) {
  const MutableRows sum{partial_.data(), x.n_cols, n_rows_, x.n_cols};
  apply(weight, nullptr, sum);
  add_reduced(x, bias, post_norm, eps);
}

void CpuOps::add_reduced(Buffer x, const WeightVector* bias, const WeightVector* post_norm,
                         float eps) {
  const MutableRows sum{partial_.data(), x.n_cols, n_rows_, x.n_cols};
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
  choose_kept_rows();
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
  const int x_cols = args.x_cols > 0 ? args.x_cols : args.x.n_cols;
  input_->assign_rmsnorm(rows(args.x, 0, x_cols), Vector::data(args.norm), args.eps, pool_);
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

void CpuOps::mla_store(const MlaStore& args) {
  const RopeTable& table = ropes_[static_cast<size_t>(args.rope.id)];
  assert(table.rope.n_dims == args.shape.rope_dim);
  mla_store_reference({.q = rows(args.q, 0, args.shape.q_cols()),
                       .kv = rows(args.kv, args.kv_col, args.shape.latent_cols()),
                       .shape = args.shape,
                       .norm = Vector::data(args.norm),
                       .eps = args.eps,
                       .style = table.rope.style,
                       .cos_sin = table.cos_sin.data(),
                       .pages = kv_cache_->latent_layer(args.layer_idx),
                       .slot_mapping = batch_->slot_mapping.data()},
                      pool_);
}

/// y (n_heads, n_tokens, outputs) = W_h x for every head's rows of x (n_heads, n_tokens, inputs).
void CpuOps::apply_heads(const WeightMatrix* matrices, const float* x, int n_tokens, float* y) {
  const auto& weights = static_cast<const Heads*>(matrices)->weights;
  const int n_cols = static_cast<int>(weights[0]->n_cols());
  const int64_t n_outputs = weights[0]->n_rows();
  const int n_rows = static_cast<int>(weights.size()) * n_tokens;
  outputs_.clear();
  group_starts_.assign({0});
  for (size_t h = 0; h < weights.size(); ++h) {
    outputs_.push_back({weights[h].get(), nullptr, y, n_outputs, static_cast<int>(h)});
    group_starts_.push_back(static_cast<int32_t>(h + 1) * n_tokens);
  }
  head_input_->assign({x, n_cols, n_rows, n_cols}, pool_);
  head_input_->group(group_starts_);
  kernels_.linear(*head_input_, outputs_, pool_);
}

/// Tile by tile of a sequence's tokens, so that the absorbed queries, which are several times wider
/// than the step's other activations, take a bounded room.
void CpuOps::mla_attention(const MlaAttention& args) {
  for (int seq = 0; seq < batch_->n_seqs(); ++seq) {
    const int end = batch_->query_starts[static_cast<size_t>(seq) + 1];
    for (int begin = batch_->query_starts[static_cast<size_t>(seq)]; begin < end;
         begin += kMlaTile) {
      attend_latents(args, seq, begin, std::min(kMlaTile, end - begin));
    }
  }
}

void CpuOps::attend_latents(const MlaAttention& args, int seq, int first_token, int n_tokens) {
  const MlaShape& shape = args.shape;
  const MutableRows all_q = rows(args.q, 0, shape.q_cols());
  const Rows q{all_q.row(first_token), all_q.stride, n_tokens, all_q.n_cols};
  const MutableRows out = rows(args.out, args.out_col, shape.out_cols());
  // Between rows of tokens and rows of heads: products want a head's tokens together.
  const auto for_each_head = [&](auto&& copy) {
    pool_.parallel_for(n_tokens, 4, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
      for (int64_t t = begin; t < end; ++t) {
        for (int h = 0; h < shape.n_heads; ++h)
          copy(t, h, int64_t{h} * n_tokens + t);
      }
    });
  };
  for_each_head([&](int64_t token, int head, int64_t row) {
    const float* from = q.row(token) + int64_t{head} * (shape.nope_dim + shape.rope_dim);
    std::copy_n(from, shape.nope_dim, head_values_.data() + row * shape.nope_dim);
  });
  apply_heads(args.k_up, head_values_.data(), n_tokens, latent_.data());
  kernels_.mla_attention(
      {.z = latent_.data(),
       .q = q,
       .shape = shape,
       .pages = kv_cache_->latent_layer(args.layer_idx),
       .scale = args.scale,
       .positions = batch_->positions.data() + first_token,
       .block_table = batch_->block_tables.data() + int64_t{seq} * batch_->max_blocks_per_seq,
       .scratch = mla_scratch_.data(),
       .scratch_stride = mla_scratch_stride_},
      pool_);
  apply_heads(args.v_up, latent_.data(), n_tokens, head_values_.data());
  for_each_head([&](int64_t token, int head, int64_t row) {
    std::copy_n(head_values_.data() + row * shape.value_dim, shape.value_dim,
                out.row(first_token + token) + int64_t{head} * shape.value_dim);
  });
}

void CpuOps::choose_kept_rows() {
  states_.clear();
  sampled_rows_.clear();
  for (const SampleRow& row : batch_->sample_rows)
    sampled_rows_.push_back(row.token_idx);
  kept_rows_.clear();
  std::ranges::set_union(sampled_rows_, batch_->state_rows, std::back_inserter(kept_rows_));
}

/// Rows ascend, so a row moves to a place that has been read already.
void CpuOps::gather(Buffer buffer, std::span<const int32_t> from) {
  const MutableRows all = rows(buffer);
  for (size_t i = 0; i < from.size(); ++i) {
    float* to = all.row(static_cast<int64_t>(i));
    if (all.row(from[i]) != to) std::copy_n(all.row(from[i]), buffer.n_cols, to);
  }
}

void CpuOps::keep_sampled_rows(std::initializer_list<Buffer> buffers) {
  for (const Buffer& buffer : buffers)
    gather(buffer, kept_rows_);
  n_rows_ = static_cast<int>(kept_rows_.size());
}

void CpuOps::take_states(const Head& args) {
  const auto place_of = [&](int32_t row) {
    return static_cast<int32_t>(std::ranges::lower_bound(kept_rows_, row) - kept_rows_.begin());
  };
  if (comm_.rank() == 0) {
    const int dim = args.x.n_cols;
    const MutableRows x = rows(args.x);
    const auto n_states = static_cast<int64_t>(batch_->state_rows.size());
    states_.resize(static_cast<size_t>(n_states * dim));
    pool_.parallel_for(n_states, 4, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
      for (int64_t i = begin; i < end; ++i) {
        const int32_t row = place_of(batch_->state_rows[static_cast<size_t>(i)]);
        rmsnorm(states_.data() + i * dim, x.row(row), Vector::data(args.norm), dim, args.eps);
      }
    });
  }
  for (int32_t& row : sampled_rows_)
    row = place_of(row);
  gather(args.x, sampled_rows_);
  n_rows_ = static_cast<int>(sampled_rows_.size());
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
  add_loras(args.gate_up, *input_, outputs);
  input_->assign_gated({gate_.data(), ffn_dim, n_rows_, ffn_dim},
                       {up_.data(), ffn_dim, n_rows_, ffn_dim}, args.activation, pool_);
  add_partial(args.x, args.down, nullptr, args.post_norm, args.eps);
}

void CpuOps::route_and_share(const MoeFfn& args) {
  const auto& router = static_cast<const Matrix*>(args.router)->parts;
  const Routing& routing = static_cast<const Experts*>(args.experts)->routing;
  const int n_experts = routing.n_experts;
  input_->assign_rmsnorm(rows(args.x), Vector::data(args.norm), args.eps, pool_);
  outputs_.assign({{router[0].get(), nullptr, router_logits_.data(), n_experts}});
  int shared_dim = 0;
  if (args.shared_gate_up != nullptr) {
    const auto& parts = static_cast<const Matrix*>(args.shared_gate_up)->parts;
    shared_dim = static_cast<int>(parts[0]->n_rows());
    outputs_.push_back({parts[0].get(), nullptr, gate_.data(), shared_dim});
    outputs_.push_back({parts[1].get(), nullptr, up_.data(), shared_dim});
  }
  kernels_.linear(*input_, outputs_, pool_);
  const std::span<const LinearOutput> outputs = outputs_;
  add_loras(args.router, *input_, outputs.first(1));
  if (args.shared_gate_up != nullptr) add_loras(args.shared_gate_up, *input_, outputs.subspan(1));
  pool_.parallel_for(n_rows_, 4, [&](int64_t begin, int64_t end, int thread_idx) {
    for (int64_t t = begin; t < end; ++t) {
      choose_experts(routing, router_logits_.data() + t * n_experts, Vector::data(args.router_bias),
                     expert_ids_.data() + t * routing.n_used,
                     expert_weights_.data() + t * routing.n_used,
                     router_scratch_.data() + int64_t{thread_idx} * 2 * n_experts);
    }
  });
  const int dim = args.x.n_cols;
  if (args.shared_gate_up == nullptr) {
    std::fill_n(partial_.data(), int64_t{n_rows_} * dim, 0.0f);
    return;
  }
  // The normalised rows stay in input_ for the experts.
  expert_input_->assign_gated({gate_.data(), shared_dim, n_rows_, shared_dim},
                              {up_.data(), shared_dim, n_rows_, shared_dim}, args.activation,
                              pool_);
  const auto& down = static_cast<const Matrix*>(args.shared_down)->parts;
  outputs_.assign({{down[0].get(), nullptr, partial_.data(), dim}});
  kernels_.linear(*expert_input_, outputs_, pool_);
  add_loras(args.shared_down, *expert_input_, outputs_);
}

void CpuOps::add_experts(const MoeFfn& args, int begin, int end) {
  const auto& all = *static_cast<const Experts*>(args.experts);
  const std::span<const int32_t> starts = plan_->starts();
  const int32_t first_pair = starts[static_cast<size_t>(begin)];
  const int n_pairs = starts[static_cast<size_t>(end)] - first_pair;
  if (n_pairs == 0) return;
  const int dim = args.x.n_cols;
  const int ffn_dim = static_cast<int>(all.experts[0].gate->n_rows());
  // A group for each expert that somebody has chosen.
  outputs_.clear();
  group_starts_.assign({0});
  const auto is_chosen = [&](int e) {
    return starts[static_cast<size_t>(e)] < starts[static_cast<size_t>(e) + 1];
  };
  for (int e = begin; e < end; ++e) {
    if (!is_chosen(e)) continue;
    const Experts::Expert& expert = all.experts[static_cast<size_t>(e)];
    const int group = static_cast<int>(group_starts_.size()) - 1;
    outputs_.push_back({expert.gate.get(), nullptr, gate_.data(), ffn_dim, group});
    outputs_.push_back({expert.up.get(), nullptr, up_.data(), ffn_dim, group});
    group_starts_.push_back(starts[static_cast<size_t>(e) + 1] - first_pair);
  }
  expert_input_->assign_rows(
      *input_,
      plan_->tokens().subspan(static_cast<size_t>(first_pair), static_cast<size_t>(n_pairs)),
      pool_);
  expert_input_->group(group_starts_);
  kernels_.linear(*expert_input_, outputs_, pool_);

  expert_input_->assign_gated({gate_.data(), ffn_dim, n_pairs, ffn_dim},
                              {up_.data(), ffn_dim, n_pairs, ffn_dim}, args.activation, pool_);
  expert_input_->group(group_starts_);
  outputs_.clear();
  for (int e = begin; e < end; ++e) {
    if (!is_chosen(e)) continue;
    outputs_.push_back({all.experts[static_cast<size_t>(e)].down.get(), nullptr, expert_out_.data(),
                        dim, static_cast<int>(outputs_.size())});
  }
  kernels_.linear(*expert_input_, outputs_, pool_);

  // A token's experts ascend, so their sum has one order however the passes were cut.
  const int n_used = all.routing.n_used;
  constexpr int kPiece = 1024;  // columns
  const int64_t n_pieces = (dim + kPiece - 1) / kPiece;
  pool_.parallel_for(n_rows_ * n_pieces, 2, [&](int64_t from, int64_t to, int /*thread_idx*/) {
    for (int64_t i = from; i < to; ++i) {
      const int64_t token = i / n_pieces;
      const int64_t first_col = i % n_pieces * kPiece;
      const int64_t n_cols = std::min<int64_t>(kPiece, dim - first_col);
      float* sum = partial_.data() + token * dim + first_col;
      for (int k = 0; k < n_used; ++k) {
        const int32_t pair = plan_->pair(token, k) - first_pair;
        if (pair < 0 || pair >= n_pairs) continue;
        const float weight = expert_weights_[static_cast<size_t>(token * n_used + k)];
        const float* y = expert_out_.data() + int64_t{pair} * dim + first_col;
        for (int64_t c = 0; c < n_cols; ++c)
          sum[c] += weight * y[c];
      }
    }
  });
}

void CpuOps::moe_ffn(const MoeFfn& args) {
  if (n_rows_ == 0) return;
  route_and_share(args);
  const auto& all = *static_cast<const Experts*>(args.experts);
  plan_->assign(expert_ids_.data(), n_rows_, all.routing.n_used, all.first_expert);
  const std::span<const int32_t> starts = plan_->starts();
  const int n_local = static_cast<int>(all.experts.size());
  // As many experts at once as the buffers have room for.
  for (int begin = 0; begin < n_local;) {
    int end = begin + 1;
    while (end < n_local &&
           starts[static_cast<size_t>(end) + 1] - starts[static_cast<size_t>(begin)] <=
               expert_rows_) {
      ++end;
    }
    add_experts(args, begin, end);
    begin = end;
  }
  add_reduced(args.x, nullptr, nullptr, args.eps);
}

void CpuOps::head(const Head& args) {
  if (!batch_->state_rows.empty()) take_states(args);
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
