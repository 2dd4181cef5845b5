// A dense model of a named shape with random weights, through CudaOps: decode by batch and context,
// with and without graphs and dependent launch, prompts, and what each kernel took. CSV.
//
//   cuda_model_bench [llama3-8b|qwen2.5-32b|tiny] [n_layers]
//
// Weights are random valid blocks in the mix of types of Q4_K_M, of equal bytes in every layer but
// in memory of their own. Numbers are of the steps alone: sampling is greedy, on the GPU.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "engine/cuda/cuda_ops.h"
#include "engine/error.h"
#include "tests/bench/gpu/read_bandwidth.h"
#include "tests/cuda/random_weights.h"

namespace dsctl::engine {
namespace {

using gguf::DType;
using MatrixPtr = std::unique_ptr<const WeightMatrix>;
using VectorPtr = std::unique_ptr<const WeightVector>;

constexpr int kBlockSize = 16;

struct ModelShape {
  std::string name;
  int n_layers = 0;
  int dim = 0;
  int ffn_dim = 0;
  int vocab_size = 0;
  HeadShape heads;
};

const ModelShape kShapes[] = {
    {"llama3-8b", 32, 4096, 14336, 128256, {.n_heads = 32, .n_kv_heads = 8, .head_dim = 128}},
    {"qwen2.5-32b", 64, 5120, 27648, 152064, {.n_heads = 40, .n_kv_heads = 8, .head_dim = 128}},
    {"tiny", 2, 512, 1024, 1024, {.n_heads = 8, .n_kv_heads = 2, .head_dim = 64}},
};

/// Matrices whose rows are runs of a pool of random blocks; one for each type and shape, of which
/// the device gets many copies.
class RandomWeights {
 public:
  MatrixView matrix(DType dtype, int64_t n_rows, int64_t n_cols) {
    const int64_t row_bytes = gguf::row_size_bytes(dtype, n_cols);
    std::vector<std::byte>& bytes = matrices_[{dtype, n_rows, n_cols}];
    if (bytes.empty()) fill(bytes, dtype, n_rows * row_bytes);
    return {.dtype = dtype,
            .n_rows = n_rows,
            .n_cols = n_cols,
            .data = bytes.data(),
            .row_stride_bytes = row_bytes};
  }

 private:
  static void fill(std::vector<std::byte>& bytes, DType dtype, int64_t n_bytes) {
    constexpr int64_t kPoolBlocks = 512;
    const gguf::DTypeInfo& info = gguf::dtype_info(dtype);
    const auto pool = tests::TestMatrix(dtype, 1, kPoolBlocks * info.block_elems, 1).bytes;
    std::mt19937 random(7);
    bytes.reserve(static_cast<size_t>(n_bytes));
    while (bytes.size() < static_cast<size_t>(n_bytes)) {
      const auto first = static_cast<int64_t>(random() % (kPoolBlocks / 2)) * info.block_bytes;
      const auto n_left = n_bytes - static_cast<int64_t>(bytes.size());
      const auto size = std::min(n_left, static_cast<int64_t>(pool.size()) - first);
      bytes.insert(bytes.end(), pool.begin() + first, pool.begin() + first + size);
    }
  }

  std::map<std::tuple<DType, int64_t, int64_t>, std::vector<std::byte>> matrices_;
};

class Model {
 public:
  Model(const ModelShape& shape, const CudaOpsOptions& options, int n_kv_blocks)
      : shape_(shape), ops_(options) {
    RandomWeights random;
    const int dim = shape.dim;
    embedding_ = ops_.load_embedding(random.matrix(DType::Q4_K, shape.vocab_size, dim));
    // Weights of N(0, 1) would let the residual stream grow without end.
    norm_ = ops_.load_vector(std::vector<float>(static_cast<size_t>(dim), 0.02f));
    rope_ = ops_.new_rope(
        make_rope({.style = RopeStyle::kNorm, .n_dims = shape.heads.head_dim, .freq_base = 5e5}));
    for (int i = 0; i < shape.n_layers; ++i) {
      // Which layers of a Q4_K_M file have six bits in attn_v and ffn_down.
      const bool more = i < shape.n_layers / 8 || i >= 7 * shape.n_layers / 8 ||
                        (i - shape.n_layers / 8) % 3 == 2;
      const DType high = more ? DType::Q6_K : DType::Q4_K;
      const int q_cols = shape.heads.q_cols();
      const int kv_cols = shape.heads.kv_cols();
      const MatrixView qkv[] = {random.matrix(DType::Q4_K, q_cols, dim),
                                random.matrix(DType::Q4_K, kv_cols, dim),
                                random.matrix(high, kv_cols, dim)};
      const MatrixView output = random.matrix(DType::Q4_K, dim, q_cols);
      const MatrixView gate = random.matrix(DType::Q4_K, shape.ffn_dim, dim);
      const MatrixView down = random.matrix(high, dim, shape.ffn_dim);
      layers_.push_back({ops_.load_matrix(qkv), ops_.load_matrix({&output, 1}),
                         ops_.load_gate_up(gate, gate), ops_.load_matrix({&down, 1})});
    }
    const MatrixView head = random.matrix(DType::Q6_K, shape.vocab_size, dim);
    head_ = ops_.load_matrix({&head, 1});
    x_ = ops_.new_buffer(dim);
    qkv_ = ops_.new_buffer(shape.heads.qkv_cols());
    attention_ = ops_.new_buffer(shape.heads.q_cols());
    ops_.finish_loading(
        {.dtype = DType::F16,
         .n_layers = shape.n_layers,
         .n_blocks = n_kv_blocks,
         .block_size = kBlockSize,
         .shape = {.n_kv_heads = shape.heads.n_kv_heads, .head_dim = shape.heads.head_dim}},
        shape.vocab_size);
  }

  CudaOps& ops() { return ops_; }
  /// Bytes that a step reads of the weights: all but the embedding table.
  double step_bytes() const {
    return static_cast<double>(ops_.weight_bytes() -
                               shape_.vocab_size * gguf::row_size_bytes(DType::Q4_K, shape_.dim));
  }

  void forward(const Batch& batch) {
    ops_.begin(batch);
    ops_.embed(x_, *embedding_, 1.0f);
    for (int i = 0; i < shape_.n_layers; ++i) {
      const Layer& layer = layers_[static_cast<size_t>(i)];
      ops_.norm_linear(
          {.out = qkv_, .x = x_, .norm = norm_.get(), .weight = layer.qkv.get(), .eps = 1e-5f});
      ops_.rope_store({.qkv = qkv_, .heads = shape_.heads, .layer_idx = i, .rope = rope_});
      ops_.attention(
          {.out = attention_, .qkv = qkv_, .heads = shape_.heads, .layer_idx = i, .scale = 0.088f});
      if (i + 1 == shape_.n_layers) ops_.keep_sampled_rows({x_, attention_});
      ops_.linear_add({.x = x_, .input = attention_, .weight = layer.output.get()});
      ops_.gated_ffn({.x = x_,
                      .norm = norm_.get(),
                      .gate_up = layer.gate_up.get(),
                      .down = layer.down.get(),
                      .eps = 1e-5f});
    }
    ops_.head({.x = x_, .norm = norm_.get(), .weight = head_.get(), .eps = 1e-5f});
  }

 private:
  struct Layer {
    MatrixPtr qkv;
    MatrixPtr output;
    MatrixPtr gate_up;
    MatrixPtr down;
  };

  const ModelShape shape_;
  CudaOps ops_;
  MatrixPtr embedding_;
  MatrixPtr head_;
  VectorPtr norm_;
  RopeId rope_;
  std::vector<Layer> layers_;
  Buffer x_;
  Buffer qkv_;
  Buffer attention_;
};

/// Sequences [0, n_seqs) with `n_new` tokens each after `context`, the last of each sampled.
/// Sequence s has the blocks from s * blocks_per_seq on.
Batch make_batch(int n_seqs, int context, int n_new, int blocks_per_seq, int vocab_size) {
  static const SamplingParams greedy = [] {
    SamplingParams params;
    params.temperature = 0.0f;
    return params;
  }();
  static const std::vector<int32_t> history{1};
  static std::mt19937 random(3);
  Batch batch;
  batch.query_starts.push_back(0);
  batch.max_blocks_per_seq = (context + n_new - 1) / kBlockSize + 1;
  for (int seq = 0; seq < n_seqs; ++seq) {
    const int first_block = seq * blocks_per_seq;
    for (int i = context; i < context + n_new; ++i) {
      batch.token_ids.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(vocab_size)));
      batch.positions.push_back(i);
      batch.slot_mapping.push_back(first_block * kBlockSize + i);
    }
    batch.query_starts.push_back(batch.n_tokens());
    batch.context_lens.push_back(context + n_new);
    for (int i = 0; i < batch.max_blocks_per_seq; ++i)
      batch.block_tables.push_back(first_block + i);
    SampleRow row;
    row.token_idx = batch.n_tokens() - 1;
    row.params = &greedy;
    row.history = &history;
    batch.sample_rows.push_back(row);
  }
  return batch;
}

class Bench {
 public:
  Bench(const ModelShape& shape, const std::string& device, double read_gb_s)
      : shape_(shape), device_(device), read_gb_s_(read_gb_s) {}

  void run_variant(const std::string& variant, bool use_graphs, bool dependent_launch,
                   bool exact_inputs = true) {
    exact_inputs_ = exact_inputs;
    make_model(use_graphs, dependent_launch, false);
    variant_ = variant;
    decode(1, 128, 40);
    if (variant != "graph+pdl") return;
    fill(1, kLongContext);
    decode(1, kLongContext, 20);
    for (const int n_seqs : {2, 4, 8, 16, 32}) {
      fill(n_seqs, 128);
      decode(n_seqs, 128, 20);
    }
    for (const int n_tokens : {128, 512, kMaxTokens})
      prompt(n_tokens);
  }

  /// What each kernel takes in a decode step, and in a prompt.
  void profile() {
    make_model(false, false, true);
    std::printf("\nkernel,work,launches,us,us_each\n");
    fill(1, 128);
    print_profile("decode 1", make_batch(1, 128, 1, blocks_per_seq(1), shape_.vocab_size));
    print_profile("prompt 512", make_batch(1, 0, 512, blocks_per_seq(1), shape_.vocab_size));
  }

 private:
  static constexpr int kMaxTokens = 2048;
  static constexpr int kLongContext = 8192;
  static constexpr int kMaxSeqs = 32;
  static constexpr int kMaxContext = kLongContext + 128;
  static constexpr int kBlocks = 1024;

  static int blocks_per_seq(int n_seqs) { return kBlocks / n_seqs; }

  void make_model(bool use_graphs, bool dependent_launch, bool with_profile) {
    model_.reset();
    CudaOpsOptions options;
    options.max_tokens = kMaxTokens;
    options.max_rows = kMaxSeqs;
    options.max_context = kMaxContext;
    options.use_graphs = use_graphs;
    options.exact_inputs = exact_inputs_;
    options.stream.dependent_launch = dependent_launch;
    options.stream.profile = with_profile;
    const auto begin = std::chrono::steady_clock::now();
    model_ = std::make_unique<Model>(shape_, options, kBlocks);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    std::fprintf(stderr, "loaded %.2f GB in %.2f s\n",
                 static_cast<double>(model_->ops().weight_bytes()) / 1e9, seconds.count());
  }

  void step(const Batch& batch) {
    model_->forward(batch);
    const auto tokens = model_->ops().sample();
    if (!tokens[0].error.empty()) throw Error(tokens[0].error);
  }

  /// Writes the caches of `n_seqs` sequences up to `context`.
  void fill(int n_seqs, int context) {
    const int each = std::max(1, kMaxTokens / n_seqs);
    for (int done = 0; done < context; done += each) {
      step(make_batch(n_seqs, done, std::min(each, context - done), blocks_per_seq(n_seqs),
                      shape_.vocab_size));
    }
  }

  void decode(int n_seqs, int context, int n_steps) {
    if (context == 128 && n_seqs == 1) fill(1, 128);
    std::vector<double> ms;
    for (int i = 0; i < n_steps + 3; ++i) {
      const Batch batch =
          make_batch(n_seqs, context + i, 1, blocks_per_seq(n_seqs), shape_.vocab_size);
      const auto begin = std::chrono::steady_clock::now();
      step(batch);
      const std::chrono::duration<double, std::milli> taken =
          std::chrono::steady_clock::now() - begin;
      if (i >= 3) ms.push_back(taken.count());
    }
    print("decode", n_seqs, context, n_seqs, ms, model_->step_bytes());
  }

  void prompt(int n_tokens) {
    std::vector<double> ms;
    for (int i = 0; i < 4; ++i) {
      const Batch batch = make_batch(1, 0, n_tokens, blocks_per_seq(1), shape_.vocab_size);
      const auto begin = std::chrono::steady_clock::now();
      step(batch);
      const std::chrono::duration<double, std::milli> taken =
          std::chrono::steady_clock::now() - begin;
      if (i > 0) ms.push_back(taken.count());
    }
    print("prompt", 1, 0, n_tokens, ms, model_->step_bytes());
  }

  void print(const char* work, int n_seqs, int context, int n_tokens, std::vector<double> ms,
             double n_bytes) {
    std::sort(ms.begin(), ms.end());
    const double median = ms[ms.size() / 2];
    const double gb_s = n_bytes / median / 1e6;
    std::printf("%s,%s,%s,%s,%d,%d,%.3f,%.1f,%.0f,%.1f\n", device_.c_str(), shape_.name.c_str(),
                variant_.c_str(), work, n_seqs, context, median, n_tokens / median * 1e3, gb_s,
                100.0 * gb_s / read_gb_s_);
    std::fflush(stdout);
  }

  void print_profile(const char* work, const Batch& batch) {
    step(batch);
    model_->ops().take_profile();
    step(batch);
    for (const auto& [kernel, time] : model_->ops().take_profile()) {
      std::printf("%s,%s,%ld,%.1f,%.2f\n", kernel.c_str(), work, static_cast<long>(time.n_launches),
                  time.total_us, time.total_us / static_cast<double>(time.n_launches));
    }
  }

  const ModelShape shape_;
  const std::string device_;
  const double read_gb_s_;
  std::string variant_;
  bool exact_inputs_ = true;
  std::unique_ptr<Model> model_;
};

void run(const std::string& name, int n_layers) {
  for (ModelShape shape : kShapes) {
    if (shape.name != name) continue;
    if (n_layers > 0) shape.n_layers = n_layers;
    const double read_gb_s = read_bandwidth_gb_s();
    CudaOpsOptions options;
    options.max_tokens = 1;
    options.max_rows = 1;
    options.max_context = 1;
    const std::string device = CudaOps(options).device_name();
    std::printf("# plain read %.0f GB/s\n", read_gb_s);
    std::printf("device,model,variant,work,sequences,context,ms,tok_s,gb_s,percent_of_read\n");
    Bench bench(shape, device, read_gb_s);
    bench.run_variant("graph+pdl", true, true);
    bench.run_variant("graph+pdl+8-bit-inputs", true, true, false);
    bench.run_variant("graph", true, false);
    bench.run_variant("pdl", false, true);
    bench.run_variant("plain", false, false);
    bench.profile();
    return;
  }
  throw Error(name + ": unknown model, expected llama3-8b, qwen2.5-32b or tiny");
}

}  // namespace
}  // namespace dsctl::engine

int main(int argc, char** argv) {
  try {
    dsctl::engine::run(argc > 1 ? argv[1] : "llama3-8b", argc > 2 ? std::atoi(argv[2]) : 0);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cuda_model_bench: %s\n", error.what());
    return 1;
  }
}
