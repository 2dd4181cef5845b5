#include "engine/cuda/cuda_ops.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>

#include "engine/error.h"
#include "gguf/dtype.h"
#include "gguf/quants/iq_grids.h"

namespace dsctl::engine {
namespace {

using cuda::InputKind;
using cuda::OutputArgs;

constexpr int64_t kUploadSlotBytes = int64_t{16} << 20;
/// Larger decode steps run without a graph: their kernels are long enough to hide the launches.
constexpr int kMaxGraphTokens = 64;
/// Tokens of one launch of attention, and bytes of its partial results, at most.
constexpr int64_t kMaxAttentionTokens = 64;
constexpr int64_t kMaxPartialBytes = int64_t{256} << 20;

/// A number that differs, in all likelihood, when two calls differ.
class CallHash {
 public:
  template <typename T>
  CallHash& add(const T& value) {
    uint64_t bits = 0;
    static_assert(sizeof(T) <= sizeof(bits));
    std::memcpy(&bits, &value, sizeof(T));
    hash_ = (std::rotl(hash_, 5) ^ bits) * 0x9e3779b97f4a7c15u;
    return *this;
  }
  CallHash& add(Buffer buffer) { return add(buffer.id).add(buffer.n_cols); }
  uint64_t value() const { return hash_; }

 private:
  uint64_t hash_ = 0;
};

std::string describe_device(int device_idx) {
  cuda::check_cuda(cudaSetDevice(device_idx), "selecting device " + std::to_string(device_idx));
  cudaDeviceProp properties;
  cuda::check_cuda(cudaGetDeviceProperties(&properties, device_idx),
                   "reading the properties of device " + std::to_string(device_idx));
  return properties.name;
}

cuda::StreamOptions stream_options(const CudaOpsOptions& options) {
  cudaDeviceProp properties;
  cuda::check_cuda(cudaGetDeviceProperties(&properties, options.device_idx),
                   "reading the properties of device " + std::to_string(options.device_idx));
  cuda::StreamOptions result = options.stream;
  result.dependent_launch = result.dependent_launch && properties.major >= 9;
  return result;
}

bool has_tiles(const MatrixView& matrix) {
  return matrix.n_cols % cuda::kStepCols == 0 &&
         cuda::with_tile_format(matrix.dtype, [](auto /*tile*/) {});
}

int64_t round_up(int64_t value, int64_t unit) {
  return (value + unit - 1) / unit * unit;
}

}  // namespace

/// One or several weights below each other.
class CudaOps::Matrix final : public WeightMatrix {
 public:
  struct Part {
    gguf::DType dtype = gguf::DType::F32;
    bool tiled = false;
    std::byte* data = nullptr;  // panels of tiles, or rows
    int64_t row_bytes = 0;      // rows only
    int n_rows = 0;
    int n_cols = 0;
  };
  std::vector<Part> parts;

  static const Matrix& of(const WeightMatrix* matrix) {
    return *static_cast<const Matrix*>(matrix);
  }
  int n_cols() const { return parts[0].n_cols; }
  bool any_tiled(bool tiled) const {
    return std::ranges::any_of(parts, [&](const Part& part) { return part.tiled == tiled; });
  }
};

struct CudaOps::Vector final : public WeightVector {
  float* values = nullptr;

  static const float* data(const WeightVector* vector) {
    return vector != nullptr ? static_cast<const Vector*>(vector)->values : nullptr;
  }
};

struct CudaOps::RopeTable {
  Rope rope;
  float* cos_sin = nullptr;  // (max_context, n_dims / 2, 2)
};

CudaOps::CudaOps(const CudaOpsOptions& options)
    : options_(options),
      device_name_(describe_device(options.device_idx)),
      stream_(stream_options(options)),
      arena_(options.arena_chunk_bytes),
      uploader_(stream_, kUploadSlotBytes),
      inputs_(stream_) {
  auto* grids = arena_.allocate(sizeof(gguf::IqGrids), "the codebooks");
  uploader_.copy(&gguf::iq_grids(), sizeof(gguf::IqGrids), grids);
  grids_ = reinterpret_cast<const gguf::IqGrids*>(grids);
}

CudaOps::~CudaOps() {
  for (auto& [key, graph] : graphs_) {
    if (graph.exec != nullptr) cudaGraphExecDestroy(graph.exec);
  }
}

std::unique_ptr<const WeightMatrix> CudaOps::load_matrix(std::span<const MatrixView> parts) {
  auto matrix = std::make_unique<Matrix>();
  for (const MatrixView& view : parts) {
    assert(view.n_cols == parts[0].n_cols);
    Matrix::Part part;
    part.dtype = view.dtype;
    part.tiled = has_tiles(view);
    part.n_rows = static_cast<int>(view.n_rows);
    part.n_cols = static_cast<int>(view.n_cols);
    const int64_t row_bytes = gguf::row_size_bytes(view.dtype, view.n_cols);
    int64_t n_bytes = 0;
    if (part.tiled) {
      cuda::with_tile_format(view.dtype, [&](auto tile) {
        const cuda::PanelShape shape{part.n_cols / cuda::kStepCols};
        const int64_t panel_bytes = shape.panel_bytes<decltype(tile)>();
        n_bytes = panel_bytes * ((part.n_rows + cuda::kPanelRows - 1) / cuda::kPanelRows);
        part.data = arena_.allocate(n_bytes, "weights");
        uploader_.stage_panels(
            view, row_bytes, [&](const std::byte* rows, int64_t first_row, int n_rows) {
              cuda::pack_tiles(stream_, view.dtype, rows, row_bytes, n_rows, part.n_cols,
                               part.data + first_row / cuda::kPanelRows * panel_bytes);
            });
      });
    } else {
      part.row_bytes = round_up(row_bytes, 16);
      n_bytes = part.row_bytes * part.n_rows;
      part.data = arena_.allocate(n_bytes, "weights");
      uploader_.copy_rows(view, row_bytes, part.row_bytes, part.data);
    }
    weight_bytes_ += n_bytes;
    max_cols_ = std::max(max_cols_, view.n_cols);
    matrix->parts.push_back(part);
  }
  return matrix;
}

std::unique_ptr<const WeightMatrix> CudaOps::load_gate_up(const MatrixView& gate,
                                                          const MatrixView& up) {
  assert(gate.n_rows == up.n_rows && gate.n_cols == up.n_cols);
  max_ffn_ = std::max(max_ffn_, gate.n_rows);
  const MatrixView parts[] = {gate, up};
  return load_matrix(parts);
}

// Experts and latent attention: refused when the model is loaded, so that no step ever meets them.

std::unique_ptr<const WeightMatrix> CudaOps::load_heads(const MatrixStack& /*matrices*/,
                                                        HeadProduct /*product*/) {
  throw Error("cuda: multi-head latent attention is computed on the CPU only, give device cpu");
}

std::unique_ptr<const WeightMatrix> CudaOps::load_experts(const ExpertViews& /*experts*/) {
  throw Error("cuda: mixtures of experts are computed on the CPU only, give device cpu");
}

void CudaOps::mla_store(const MlaStore& /*args*/) {
  throw Error("cuda: mla_store without load_heads");
}

void CudaOps::mla_attention(const MlaAttention& /*args*/) {
  throw Error("cuda: mla_attention without load_heads");
}

void CudaOps::moe_ffn(const MoeFfn& /*args*/) {
  throw Error("cuda: moe_ffn without load_experts");
}

std::unique_ptr<const WeightVector> CudaOps::load_vector(std::span<const float> values) {
  auto vector = std::make_unique<Vector>();
  const auto n_bytes = static_cast<int64_t>(values.size_bytes());
  std::byte* data = arena_.allocate(n_bytes, "weights");
  uploader_.copy(values.data(), n_bytes, data);
  vector->values = reinterpret_cast<float*>(data);
  weight_bytes_ += n_bytes;
  return vector;
}

/// As it is in the file: rows are read one by one. A tied head is a second, tiled copy.
std::unique_ptr<const WeightMatrix> CudaOps::load_embedding(const MatrixView& table) {
  auto matrix = std::make_unique<Matrix>();
  Matrix::Part part;
  part.dtype = table.dtype;
  part.row_bytes = gguf::row_size_bytes(table.dtype, table.n_cols);
  part.n_rows = static_cast<int>(table.n_rows);
  part.n_cols = static_cast<int>(table.n_cols);
  const int64_t n_bytes = part.row_bytes * part.n_rows;
  part.data = arena_.allocate(n_bytes, "the embedding table");
  uploader_.copy_rows(table, part.row_bytes, part.row_bytes, part.data);
  weight_bytes_ += n_bytes;
  matrix->parts.push_back(part);
  return matrix;
}

Buffer CudaOps::new_buffer(int n_cols) {
  const int64_t n_bytes = int64_t{options_.max_tokens} * n_cols * int64_t{sizeof(float)};
  std::byte* data = arena_.allocate(n_bytes, "activations");
  stream_.fill_zero(data, static_cast<size_t>(n_bytes));
  buffers_.push_back({static_cast<int>(buffers_.size()), n_cols});
  buffer_data_.push_back(reinterpret_cast<float*>(data));
  return buffers_.back();
}

RopeId CudaOps::new_rope(const Rope& rope) {
  RopeTable table;
  table.rope = rope;
  const int n_pairs = rope.n_dims / 2;
  const auto n_bytes = int64_t{options_.max_context} * rope.n_dims * int64_t{sizeof(float)};
  table.cos_sin = reinterpret_cast<float*>(arena_.allocate(n_bytes, "rope tables"));
  const auto frequency_bytes = static_cast<int64_t>(rope.frequencies.size() * sizeof(double));
  std::byte* frequencies = arena_.allocate(frequency_bytes, "rope tables");
  uploader_.copy(rope.frequencies.data(), frequency_bytes, frequencies);
  cuda::fill_rope_table(stream_, reinterpret_cast<const double*>(frequencies), n_pairs,
                        rope.magnitude, options_.max_context, table.cos_sin);
  ropes_.push_back(std::move(table));
  return {static_cast<int>(ropes_.size()) - 1};
}

void CudaOps::finish_loading(const KvLayout& layout, int vocab_size) {
  const int head_dim = layout.shape.head_dim;
  if (head_dim <= 0 || head_dim % 4 != 0 || head_dim > cuda::kMaxHeadDim) {
    throw Error("cuda: heads of " + std::to_string(head_dim) +
                " values, expected a multiple of 4 up to " + std::to_string(cuda::kMaxHeadDim));
  }
  layout_ = layout;
  const int64_t max_tokens = options_.max_tokens;
  const int64_t max_rows = options_.max_rows;
  int64_t widest = 1;
  for (const Buffer& buffer : buffers_)
    widest = std::max<int64_t>(widest, buffer.n_cols);
  const auto floats = [&](int64_t n, const char* purpose) {
    return reinterpret_cast<float*>(arena_.allocate(n * int64_t{sizeof(float)}, purpose));
  };
  input_stride_ = round_up(max_cols_, 4);
  input_values_ = floats(max_tokens * input_stride_, "activations");
  tile_stride_ = round_up(max_cols_, cuda::kTileCols) / cuda::kTileCols;
  input_tiles_ = reinterpret_cast<cuda::ActivationTile*>(arena_.allocate(
      max_tokens * tile_stride_ * int64_t{sizeof(cuda::ActivationTile)}, "activations"));
  gate_ = floats(max_tokens * max_ffn_, "activations");
  up_ = floats(max_tokens * max_ffn_, "activations");
  branch_ = floats(max_tokens * widest, "activations");
  max_splits_ = (options_.max_context + cuda::kSplitKeys - 1) / cuda::kSplitKeys;
  max_heads_ = static_cast<int>(widest / head_dim);
  const int64_t partial_of_token = int64_t{max_heads_} * max_splits_ * (head_dim + 2);
  attention_tokens_ = static_cast<int>(std::clamp<int64_t>(
      kMaxPartialBytes / int64_t{sizeof(float)} / std::max<int64_t>(1, partial_of_token), 1,
      std::min<int64_t>(options_.max_tokens, kMaxAttentionTokens)));
  attention_partial_ = floats(attention_tokens_ * partial_of_token, "attention");
  kv_pages_ = arena_.allocate(layout.total_bytes(), "the KV cache");
  vocab_size_ = vocab_size;
  logits_ = floats(max_rows * vocab_size, "logits");
  best_ = reinterpret_cast<cuda::Best*>(
      arena_.allocate(max_rows * int64_t{sizeof(cuda::Best)}, "logits"));
  host_logits_ = cuda::allocate_pinned(max_rows * vocab_size * int64_t{sizeof(float)}, "logits");
  host_best_ = cuda::allocate_pinned(max_rows * int64_t{sizeof(cuda::Best)}, "logits");
  inputs_.allocate(options_.max_tokens, options_.max_rows, options_.max_rows,
                   max_splits_ * ((cuda::kSplitKeys - 1) / layout.block_size + 2));
  sampler_ = std::make_unique<Sampler>(vocab_size);
  uploader_.finish();
}

float* CudaOps::data(Buffer buffer) const {
  return buffer_data_[static_cast<size_t>(buffer.id)];
}

std::vector<float> CudaOps::read_buffer(Buffer buffer) {
  std::vector<float> values(static_cast<size_t>(n_rows_) * static_cast<size_t>(buffer.n_cols));
  stream_.copy_to_host(values.data(), data(buffer), values.size() * sizeof(float));
  stream_.synchronize();
  return values;
}

void CudaOps::write_buffer(Buffer buffer, std::span<const float> values) {
  stream_.copy_to_device(data(buffer), values.data(), values.size_bytes());
  stream_.synchronize();
}

/// Graphs are for steps in which every sequence has one token and every token is sampled.
void CudaOps::begin(const Batch& batch) {
  if (stream_.capturing()) cudaGraphExecDestroy(stream_.end_capture());  // a step that failed
  stream_.enter("the inputs of a step");
  assert(batch.n_tokens() <= options_.max_tokens);
  assert(batch.sample_rows.size() <= static_cast<size_t>(options_.max_rows));
  if (batch.n_seqs() > options_.max_rows) {
    throw Error("cuda: a step of " + std::to_string(batch.n_seqs()) +
                " sequences, expected at most " + std::to_string(options_.max_rows));
  }
  batch_ = &batch;
  n_rows_ = batch.n_tokens();
  n_calls_ = 0;
  const int last = *std::max_element(batch.positions.begin(), batch.positions.end());
  GraphKey key{batch.n_tokens(), last / cuda::kSplitKeys + 1};
  key.n_splits =
      std::min(static_cast<int>(std::bit_ceil(static_cast<unsigned>(key.n_splits))), max_splits_);
  inputs_.upload(batch, key.n_splits * cuda::kSplitKeys / layout_.block_size + 1);
  n_splits_ = key.n_splits;

  const bool decode = batch.n_seqs() == batch.n_tokens() &&
                      batch.sample_rows.size() == static_cast<size_t>(batch.n_tokens());
  mode_ = Mode::kDirect;
  graph_ = nullptr;
  if (!options_.use_graphs || !decode || batch.n_tokens() > kMaxGraphTokens) return;
  graph_ = &graphs_[key];
  if (graph_->exec != nullptr) {
    mode_ = Mode::kReplay;
    ++n_replays_;
    stream_.launch_graph(graph_->exec);
  } else {
    mode_ = Mode::kCapture;
    graph_->calls.clear();
    stream_.begin_capture();
  }
}

bool CudaOps::enter(const char* operation, int layer_idx, uint64_t call_hash) {
  if (mode_ == Mode::kReplay) {
    if (n_calls_ >= graph_->calls.size() || graph_->calls[n_calls_] != call_hash) {
      throw Error(std::string("cuda: ") + operation +
                  " is another operation than in the step that the graph was made of");
    }
    ++n_calls_;
    return false;
  }
  stream_.enter(operation, layer_idx);
  if (mode_ == Mode::kCapture) graph_->calls.push_back(call_hash);
  ++n_calls_;
  return true;
}

void CudaOps::end_graph() {
  if (mode_ == Mode::kCapture) {
    graph_->exec = stream_.end_capture();
    stream_.launch_graph(graph_->exec);
  }
}

void CudaOps::embed(Buffer x, const WeightMatrix& table, float scale) {
  if (!enter("embed", -1, CallHash().add(1).add(x).add(&table).add(scale).value())) return;
  const Matrix::Part& part = Matrix::of(&table).parts[0];
  cuda::embed(stream_, {.x = data(x),
                        .table = part.data,
                        .dtype = part.dtype,
                        .row_bytes = part.row_bytes,
                        .n_cols = part.n_cols,
                        .token_ids = inputs_.token_ids(),
                        .n_tokens = n_rows_,
                        .scale = scale,
                        .grids = grids_});
}

void CudaOps::prepare(const Matrix& matrix, cuda::InputArgs args) {
  args.n_cols = matrix.n_cols();
  args.n_tokens = n_rows_;
  // Rows as they are need no copy when they are aligned for the kernels.
  const bool in_place = args.kind == InputKind::kPlain && args.x_stride % 4 == 0;
  current_values_ = in_place ? args.x : input_values_;
  current_stride_ = in_place ? args.x_stride : input_stride_;
  if (matrix.any_tiled(false) && !in_place) {
    args.values = input_values_;
    args.values_stride = input_stride_;
  }
  if (matrix.any_tiled(true)) {
    args.tiles = input_tiles_;
    args.tiles_stride = tile_stride_;
  }
  if (args.values != nullptr || args.tiles != nullptr) cuda::prepare_input(stream_, args);
}

void CudaOps::multiply(const Matrix& matrix, std::span<const OutputArgs> outputs) {
  cuda::TileLinearArgs tiled;
  tiled.n_cols = matrix.n_cols();
  tiled.input = input_tiles_;
  tiled.input_stride = tile_stride_;
  tiled.n_tokens = n_rows_;
  tiled.exact = options_.exact_inputs;
  for (size_t i = 0; i < matrix.parts.size(); ++i) {
    const Matrix::Part& part = matrix.parts[i];
    if (part.tiled) {
      assert(tiled.n_parts < cuda::kMaxTileParts);
      tiled.parts[tiled.n_parts++] = {part.data, part.dtype, part.n_rows, outputs[i]};
      continue;
    }
    cuda::row_linear(stream_, {.weights = part.data,
                               .dtype = part.dtype,
                               .row_bytes = part.row_bytes,
                               .n_rows = part.n_rows,
                               .n_cols = part.n_cols,
                               .input = current_values_,
                               .input_stride = current_stride_,
                               .n_tokens = n_rows_,
                               .output = outputs[i],
                               .grids = grids_});
  }
  if (tiled.n_parts > 0) cuda::tile_linear(stream_, tiled);
}

void CudaOps::norm_linear(const NormLinear& args) {
  const uint64_t call = CallHash()
                            .add(2)
                            .add(args.out)
                            .add(args.x)
                            .add(args.x_cols)
                            .add(args.norm)
                            .add(args.weight)
                            .add(args.bias)
                            .add(args.eps)
                            .value();
  if (!enter("norm_linear", -1, call)) return;
  const Matrix& matrix = Matrix::of(args.weight);
  assert(matrix.n_cols() == (args.x_cols > 0 ? args.x_cols : args.x.n_cols));
  prepare(matrix, {.kind = InputKind::kNorm,
                   .x = data(args.x),
                   .x_stride = args.x.n_cols,
                   .norm = Vector::data(args.norm),
                   .eps = args.eps});
  std::vector<OutputArgs> outputs;
  int64_t first_col = 0;
  for (const Matrix::Part& part : matrix.parts) {
    const float* bias = Vector::data(args.bias);
    outputs.push_back({.out = data(args.out) + first_col,
                       .stride = args.out.n_cols,
                       .bias = bias != nullptr ? bias + first_col : nullptr});
    first_col += part.n_rows;
  }
  assert(first_col == args.out.n_cols);
  multiply(matrix, outputs);
}

cuda::DeviceKvPages CudaOps::pages(int layer_idx) const {
  const int64_t half_bytes = layout_.total_bytes() / layout_.n_layers / 2;
  cuda::DeviceKvPages pages;
  pages.dtype = layout_.dtype;
  pages.k = kv_pages_ + 2 * layer_idx * half_bytes;
  pages.v = pages.k + half_bytes;
  pages.block_size = layout_.block_size;
  pages.n_kv_heads = layout_.shape.n_kv_heads;
  pages.head_dim = layout_.shape.head_dim;
  return pages;
}

void CudaOps::rope_store(const RopeStore& args) {
  const uint64_t call = CallHash()
                            .add(3)
                            .add(args.qkv)
                            .add(args.heads.n_heads)
                            .add(args.layer_idx)
                            .add(args.q_norm)
                            .add(args.k_norm)
                            .add(args.eps)
                            .add(args.rope.id)
                            .value();
  if (!enter("rope_store", args.layer_idx, call)) return;
  assert(args.heads.head_dim == layout_.shape.head_dim);
  assert(args.heads.n_kv_heads == layout_.shape.n_kv_heads);
  const RopeTable& table = ropes_[static_cast<size_t>(args.rope.id)];
  cuda::rope_store(stream_, {.qkv = data(args.qkv),
                             .qkv_stride = args.qkv.n_cols,
                             .n_heads = args.heads.n_heads,
                             .q_norm = Vector::data(args.q_norm),
                             .k_norm = Vector::data(args.k_norm),
                             .eps = args.eps,
                             .style = table.rope.style,
                             .n_dims = table.rope.n_dims,
                             .cos_sin = table.cos_sin,
                             .positions = inputs_.positions(),
                             .slot_mapping = inputs_.slot_mapping(),
                             .n_tokens = n_rows_,
                             .kv = pages(args.layer_idx)});
}

void CudaOps::attention(const Attention& args) {
  const uint64_t call = CallHash()
                            .add(4)
                            .add(args.out)
                            .add(args.qkv)
                            .add(args.heads.n_heads)
                            .add(args.layer_idx)
                            .add(args.out_col)
                            .add(args.scale)
                            .add(args.softcap)
                            .add(args.window)
                            .value();
  if (!enter("attention", args.layer_idx, call)) return;
  assert(args.heads.n_heads <= max_heads_);
  for (int first = 0; first < n_rows_; first += attention_tokens_) {
    cuda::attention(stream_,
                    {.out = data(args.out) + int64_t{first} * args.out.n_cols + args.out_col,
                     .out_stride = args.out.n_cols,
                     .q = data(args.qkv) + int64_t{first} * args.qkv.n_cols,
                     .q_stride = args.qkv.n_cols,
                     .n_heads = args.heads.n_heads,
                     .scale = args.scale,
                     .softcap = args.softcap,
                     .window = args.window,
                     .positions = inputs_.positions() + first,
                     .seq_of_token = inputs_.seq_of_token() + first,
                     .block_tables = inputs_.block_tables(),
                     .table_stride = inputs_.table_stride(),
                     .n_tokens = std::min(attention_tokens_, n_rows_ - first),
                     .n_splits = n_splits_,
                     .kv = pages(args.layer_idx),
                     .partial = attention_partial_});
  }
}

void CudaOps::keep_sampled_rows(std::initializer_list<Buffer> buffers) {
  const int n_kept = static_cast<int>(batch_->sample_rows.size());
  if (!enter("keep_sampled_rows", -1, CallHash().add(5).add(n_kept).value())) return;
  // Rows ascend: when all are kept, each is in its place.
  if (n_kept < n_rows_ && n_kept > 0) {
    for (const Buffer& buffer : buffers) {
      cuda::gather_rows(stream_, data(buffer), buffer.n_cols, buffer.n_cols, inputs_.sample_rows(),
                        n_kept);
    }
  }
  n_rows_ = n_kept;
}

void CudaOps::add_product(Buffer x, const Matrix& matrix, const WeightVector* bias,
                          const WeightVector* post_norm, float eps) {
  if (post_norm == nullptr) {
    const OutputArgs output{
        .out = data(x), .stride = x.n_cols, .bias = Vector::data(bias), .add = true};
    multiply(matrix, {&output, 1});
    return;
  }
  const OutputArgs output{.out = branch_, .stride = x.n_cols};
  multiply(matrix, {&output, 1});
  cuda::add_branch(stream_, {.x = data(x),
                             .y = branch_,
                             .bias = Vector::data(bias),
                             .norm = Vector::data(post_norm),
                             .eps = eps,
                             .n_cols = x.n_cols,
                             .n_tokens = n_rows_});
}

void CudaOps::linear_add(const LinearAdd& args) {
  if (n_rows_ == 0) return;
  const uint64_t call = CallHash()
                            .add(6)
                            .add(args.x)
                            .add(args.input)
                            .add(args.weight)
                            .add(args.bias)
                            .add(args.post_norm)
                            .add(args.eps)
                            .value();
  if (!enter("linear_add", -1, call)) return;
  const Matrix& matrix = Matrix::of(args.weight);
  prepare(matrix,
          {.kind = InputKind::kPlain, .x = data(args.input), .x_stride = args.input.n_cols});
  add_product(args.x, matrix, args.bias, args.post_norm, args.eps);
}

void CudaOps::gated_ffn(const GatedFfn& args) {
  if (n_rows_ == 0) return;
  const uint64_t call = CallHash()
                            .add(7)
                            .add(args.x)
                            .add(args.norm)
                            .add(args.gate_up)
                            .add(args.down)
                            .add(args.post_norm)
                            .add(args.activation)
                            .add(args.eps)
                            .value();
  if (!enter("gated_ffn", -1, call)) return;
  const Matrix& gate_up = Matrix::of(args.gate_up);
  const Matrix& down = Matrix::of(args.down);
  const int ffn_dim = gate_up.parts[0].n_rows;
  prepare(gate_up, {.kind = InputKind::kNorm,
                    .x = data(args.x),
                    .x_stride = args.x.n_cols,
                    .norm = Vector::data(args.norm),
                    .eps = args.eps});
  const OutputArgs outputs[] = {{.out = gate_, .stride = ffn_dim}, {.out = up_, .stride = ffn_dim}};
  multiply(gate_up, outputs);
  prepare(down, {.kind = InputKind::kGated,
                 .x = gate_,
                 .x_stride = ffn_dim,
                 .up = up_,
                 .activation = args.activation});
  add_product(args.x, down, nullptr, args.post_norm, args.eps);
}

void CudaOps::head(const Head& args) {
  if (n_rows_ == 0) return;
  const uint64_t call = CallHash()
                            .add(8)
                            .add(args.x)
                            .add(args.norm)
                            .add(args.weight)
                            .add(args.softcap)
                            .add(args.eps)
                            .value();
  if (!enter("head", -1, call)) return;
  const Matrix& matrix = Matrix::of(args.weight);
  assert(matrix.parts[0].n_rows == vocab_size_);
  prepare(matrix, {.kind = InputKind::kNorm,
                   .x = data(args.x),
                   .x_stride = args.x.n_cols,
                   .norm = Vector::data(args.norm),
                   .eps = args.eps});
  const OutputArgs output{.out = logits_, .stride = vocab_size_};
  multiply(matrix, {&output, 1});
  if (args.softcap > 0.0f) {
    cuda::soft_cap(stream_, logits_, int64_t{n_rows_} * vocab_size_, args.softcap);
  }
  cuda::arg_max(stream_, logits_, n_rows_, vocab_size_, best_);
  end_graph();
}

std::span<const float> CudaOps::logits(int row_idx) {
  assert(row_idx >= 0 && static_cast<size_t>(row_idx) < batch_->sample_rows.size());
  stream_.enter("logits");
  const auto vocab = static_cast<size_t>(vocab_size_);
  auto* to = reinterpret_cast<float*>(host_logits_.get()) + static_cast<size_t>(row_idx) * vocab;
  stream_.copy_to_host(to, logits_ + static_cast<size_t>(row_idx) * vocab, vocab * sizeof(float));
  stream_.synchronize();
  return {to, vocab};
}

/// Whether the row's token is the best one of the logits as they are.
bool CudaOps::is_greedy(const SampleRow& row) const {
  const SamplingParams& params = *row.params;
  const bool edits = !params.logit_bias.empty() ||
                     (row.banned != nullptr && !row.banned->empty()) ||
                     params.repeat_penalty != 1.0f || params.presence_penalty != 0.0f ||
                     params.frequency_penalty != 0.0f || params.dry_multiplier != 0.0f;
  return params.temperature <= 0.0f && params.n_logprobs < 0 && row.grammar == nullptr && !edits;
}

/// Greedy rows need the best token only; the logits of the others come to the host.
std::vector<SampledToken> CudaOps::sample() {
  stream_.enter("sample");
  const size_t n_rows = batch_->sample_rows.size();
  const auto* best = reinterpret_cast<const cuda::Best*>(host_best_.get());
  stream_.copy_to_host(host_best_.get(), best_, n_rows * sizeof(cuda::Best));
  const auto vocab = static_cast<size_t>(vocab_size_);
  auto* host_logits = reinterpret_cast<float*>(host_logits_.get());
  const auto copy_logits = [&](size_t row) {
    stream_.copy_to_host(host_logits + row * vocab, logits_ + row * vocab, vocab * sizeof(float));
  };
  for (size_t i = 0; i < n_rows; ++i) {
    if (!is_greedy(batch_->sample_rows[i])) copy_logits(i);
  }
  stream_.synchronize();
  std::vector<SampledToken> tokens(n_rows);
  for (size_t i = 0; i < n_rows; ++i) {
    const SampleRow& row = batch_->sample_rows[i];
    if (is_greedy(row)) {
      tokens[i].token = best[i].token;
      tokens[i].mirostat_mu = row.mirostat_mu;
      if (best[i].token >= 0) continue;
      copy_logits(i);  // the sampler says what is wrong with them
      stream_.synchronize();
    }
    tokens[i] = sampler_->sample({host_logits + i * vocab, vocab}, row);
  }
  return tokens;
}

}  // namespace dsctl::engine
