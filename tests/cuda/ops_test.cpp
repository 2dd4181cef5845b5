// Every operation of CudaOps against the same formulas in f64, with the bounds of ops.h.
#include "engine/ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "gguf/dtype.h"
#include "gguf/quants/all.h"
#include "gguf/quants/half.h"
#include "tests/cuda/device.h"
#include "tests/cuda/random_weights.h"
#include "tests/support/catch.h"

namespace dsctl::engine {
namespace {

using gguf::DType;
using tests::multiply_exactly;
using tests::nmse;
using tests::normal_values;
using tests::rmsnorm_exactly;
using tests::TestMatrix;

constexpr int kVocab = 33;

bool has_tensor_core_form(DType dtype) {
  return std::ranges::count(std::vector<DType>{DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1,
                                               DType::Q8_0, DType::Q4_K, DType::Q5_K, DType::Q6_K},
                            dtype) > 0;
}

/// Inputs in 16 bits of blocks of 32 cost about 3e-10, in 8 bits 3e-5; f32 products only their
/// rounding.
double bound(DType dtype, bool exact_inputs = true) {
  if (!has_tensor_core_form(dtype)) return 1e-10;
  return exact_inputs ? 3e-9 : 1e-4;
}

/// A batch of one sequence with tokens [first, first + n).
Batch sequence_batch(int first, int n, int block_size = 8) {
  Batch batch;
  for (int i = first; i < first + n; ++i) {
    batch.token_ids.push_back(i % kVocab);
    batch.positions.push_back(i);
    batch.slot_mapping.push_back(i);
    batch.sample_rows.emplace_back();
    batch.sample_rows.back().token_idx = i - first;
  }
  batch.query_starts = {0, n};
  batch.context_lens = {first + n};
  batch.max_blocks_per_seq = (first + n - 1) / block_size + 1;
  for (int i = 0; i < batch.max_blocks_per_seq; ++i)
    batch.block_tables.push_back(i);
  return batch;
}

KvLayout small_layout(DType dtype = DType::F32) {
  return {.dtype = dtype,
          .n_layers = 2,
          .n_blocks = 16,
          .block_size = 8,
          .shape = {.n_kv_heads = 1, .head_dim = 16}};
}

std::vector<double> as_double(const std::vector<float>& values) {
  return {values.begin(), values.end()};
}

CudaOpsOptions direct_options() {
  CudaOpsOptions options = tests::cuda_options();
  options.use_graphs = false;
  return options;
}

/// A product as norm_linear does it, with several weights side by side.
struct LinearCase {
  CudaOps ops;
  std::vector<float> norm;
  std::unique_ptr<const WeightVector> norm_weight;
  std::unique_ptr<const WeightMatrix> weight;
  Buffer x;
  Buffer out;
  std::vector<float> bias;
  std::unique_ptr<const WeightVector> bias_weight;

  explicit LinearCase(const std::vector<const TestMatrix*>& matrices,
                      const CudaOpsOptions& options = direct_options())
      : ops(options) {
    std::vector<MatrixView> views;
    int n_rows = 0;
    for (const TestMatrix* matrix : matrices) {
      views.push_back(matrix->view);
      n_rows += static_cast<int>(matrix->view.n_rows);
    }
    const int n_cols = static_cast<int>(views[0].n_cols);
    norm = normal_values(n_cols, 2);
    norm_weight = ops.load_vector(norm);
    weight = ops.load_matrix(views);
    bias = normal_values(n_rows, 3);
    bias_weight = ops.load_vector(bias);
    x = ops.new_buffer(n_cols);
    out = ops.new_buffer(n_rows);
    ops.finish_loading(small_layout(), kVocab);
  }

  std::vector<float> run(const std::vector<float>& input) {
    const Batch batch = sequence_batch(0, static_cast<int>(input.size()) / x.n_cols);
    ops.begin(batch);
    ops.write_buffer(x, input);
    ops.norm_linear({.out = out,
                     .x = x,
                     .norm = norm_weight.get(),
                     .weight = weight.get(),
                     .bias = bias_weight.get(),
                     .eps = 1e-5f});
    return ops.read_buffer(out);
  }

  std::vector<double> expected(const std::vector<const TestMatrix*>& matrices,
                               const std::vector<float>& input) const {
    const auto h = rmsnorm_exactly(input, norm, x.n_cols, 1e-5);
    std::vector<double> all(input.size() / static_cast<size_t>(x.n_cols) * bias.size());
    size_t first = 0;
    for (const TestMatrix* matrix : matrices) {
      const auto y = multiply_exactly(*matrix, h);
      const auto n_rows = static_cast<size_t>(matrix->view.n_rows);
      for (size_t i = 0; i < y.size(); ++i) {
        const size_t column = first + i % n_rows;
        all[i / n_rows * bias.size() + column] = y[i] + bias[column];
      }
      first += n_rows;
    }
    return all;
  }
};

/// Column counts with odd numbers of steps and tiles, and one whole tile.
std::vector<int64_t> column_counts(DType dtype) {
  const int block = gguf::dtype_info(dtype).block_elems;
  if (block == 256) return {256, 768};
  if (block > 1)
    return {64 * (block / 32 > 0 ? block / 32 : 1), 224 / block * block + 2 * block, 576};
  return {1, 30, 200};
}

std::vector<int64_t> valid_columns(DType dtype) {
  std::vector<int64_t> valid;
  for (const int64_t n : column_counts(dtype)) {
    if (n % gguf::dtype_info(dtype).block_elems == 0) valid.push_back(n);
  }
  return valid;
}

/// Runs `body` with the threads of a block in both orders, where that can be chosen.
template <typename Body>
void in_both_orders(const Body& body) {
  body();
  if (!tests::is_emulated()) return;
  tests::reverse_threads(true);
  body();
  tests::reverse_threads(false);
}

}  // namespace

TEST_CASE("norm_linear multiplies with weights of every type", "[gpu]") {
  for (const DType dtype : tests::all_types()) {
    for (const int64_t n_cols : valid_columns(dtype)) {
      for (const int64_t n_rows : {1, 37}) {
        const TestMatrix matrix(dtype, n_rows, n_cols, 1, n_rows > 1 ? 6 : 0);
        LinearCase test({&matrix});
        for (const int n_tokens : {1, 3, 11, 40}) {
          const auto x = normal_values(n_tokens * n_cols, 4);
          INFO(gguf::dtype_info(dtype).name << " " << n_rows << " x " << n_cols << ", " << n_tokens
                                            << " tokens");
          const double error = nmse(test.run(x), test.expected({&matrix}, x));
          // Few outputs: their error is a sample, not a mean.
          CHECK(error <= (n_rows * n_tokens < 16 ? 30 : 1) * bound(dtype));
        }
      }
    }
  }
}

TEST_CASE("A token's product has the same bits alone and among others", "[gpu]") {
  for (const DType dtype : tests::all_types()) {
    const int64_t n_cols = valid_columns(dtype).back();
    const TestMatrix matrix(dtype, 21, n_cols, 5);
    LinearCase test({&matrix});
    constexpr int kTokens = 40;
    const auto x = normal_values(kTokens * n_cols, 6);
    std::vector<float> alone;
    for (int t = 0; t < kTokens; ++t) {
      const auto y = test.run({x.begin() + t * n_cols, x.begin() + (t + 1) * n_cols});
      alone.insert(alone.end(), y.begin(), y.end());
    }
    for (const int n_tokens : {2, 8, 9, 16, 17, 33, 40}) {
      const auto y = test.run({x.begin(), x.begin() + n_tokens * n_cols});
      INFO(gguf::dtype_info(dtype).name << ", " << n_tokens << " tokens");
      CHECK(std::memcmp(y.data(), alone.data(), y.size() * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("norm_linear may take inputs of 8 bits, with the same bits in any company", "[gpu]") {
  CudaOpsOptions options = direct_options();
  options.exact_inputs = false;
  for (const DType dtype : tests::all_types()) {
    if (!has_tensor_core_form(dtype)) continue;
    const TestMatrix matrix(dtype, 37, 512, 1);
    LinearCase test({&matrix}, options);
    const auto x = normal_values(19 * 512, 4);
    const auto together = test.run(x);
    const double error = nmse(together, test.expected({&matrix}, x));
    INFO(gguf::dtype_info(dtype).name);
    CHECK(error <= bound(dtype, false));
    CHECK(error > bound(dtype));  // or the option does nothing
    const auto alone = test.run({x.begin() + 7 * 512, x.begin() + 8 * 512});
    CHECK(std::equal(alone.begin(), alone.end(), together.begin() + 7 * 37));
  }
}

TEST_CASE("norm_linear holds its bounds on shapes drawn at random", "[gpu]") {
  std::mt19937 random(2024);
  const auto between = [&](int low, int high) {
    return low + static_cast<int>(random() % static_cast<unsigned>(high - low + 1));
  };
  const auto types = tests::all_types();
  const int n_cases = tests::is_emulated() ? 60 : 600;
  for (int i = 0; i < n_cases; ++i) {
    const DType dtype = types[random() % types.size()];
    const int block = gguf::dtype_info(dtype).block_elems;
    const int64_t n_cols = int64_t{block} * between(1, std::max(2, 1024 / block));
    const int n_rows = between(1, 70);
    const int n_tokens = between(1, 40);
    const TestMatrix matrix(dtype, n_rows, n_cols, random(), between(0, 3));
    LinearCase test({&matrix});
    const auto x = normal_values(n_tokens * n_cols, random());
    INFO(gguf::dtype_info(dtype).name << " " << n_rows << " x " << n_cols << ", " << n_tokens
                                      << " tokens");
    const double error = nmse(test.run(x), test.expected({&matrix}, x));
    CHECK(error <= (n_rows * n_tokens < 16 ? 30 : 1) * bound(dtype));
  }
}

TEST_CASE("norm_linear applies weights of different types to one input", "[gpu]") {
  const TestMatrix q(DType::Q4_K, 40, 512, 1);
  const TestMatrix k(DType::F16, 7, 512, 2);
  const TestMatrix v(DType::Q6_K, 17, 512, 3);
  const TestMatrix w(DType::IQ4_XS, 9, 512, 4);
  const std::vector<const TestMatrix*> all{&q, &k, &v, &w};
  in_both_orders([&] {
    LinearCase test(all);
    for (const int n_tokens : {1, 5}) {
      const auto x = normal_values(n_tokens * 512, 5);
      CHECK(nmse(test.run(x), test.expected(all, x)) <= 3e-9);
    }
  });
}

TEST_CASE("Products keep zeros, tiny and huge values, and show what is no number", "[gpu]") {
  const TestMatrix matrix(DType::Q8_0, 16, 64, 10);
  CudaOps ops(direct_options());
  const auto weight = ops.load_matrix({&matrix.view, 1});
  const Buffer input = ops.new_buffer(64);
  const Buffer x = ops.new_buffer(16);
  ops.finish_loading(small_layout(), kVocab);
  const Batch batch = sequence_batch(0, 1);
  const auto run = [&](const std::vector<float>& values) {
    ops.begin(batch);
    ops.write_buffer(input, values);
    ops.write_buffer(x, std::vector<float>(16, 0.0f));
    ops.linear_add({.x = x, .input = input, .weight = weight.get()});
    return ops.read_buffer(x);
  };
  std::vector<float> values(64, 0.0f);
  CHECK(run(values) == std::vector<float>(16, 0.0f));
  values[3] = 1e-40f;
  for (const float y : run(values))
    CHECK(std::abs(y) < 1e-30f);
  values[3] = 1e30f;
  CHECK(nmse(run(values), multiply_exactly(matrix, as_double(values))) < 1e-6);
  for (const float no_number : {INFINITY, -INFINITY, NAN}) {
    values[40] = no_number;
    for (const float y : run(values))
      CHECK(!std::isfinite(y));
  }
}

TEST_CASE("embed gives the file's values, scaled, for every type", "[gpu]") {
  for (const DType dtype : tests::all_types()) {
    const int64_t n_cols = valid_columns(dtype).back();
    const TestMatrix table(dtype, kVocab, n_cols, 1);
    CudaOps ops(direct_options());
    const auto weight = ops.load_embedding(table.view);
    const Buffer x = ops.new_buffer(static_cast<int>(n_cols));
    ops.finish_loading(small_layout(), kVocab);
    Batch batch = sequence_batch(0, 3);
    batch.token_ids = {32, 0, 32};
    ops.begin(batch);
    ops.embed(x, *weight, 3.0f);
    const auto got = ops.read_buffer(x);
    std::vector<float> expected;
    for (const int32_t token : batch.token_ids) {
      for (int64_t i = 0; i < n_cols; ++i)
        expected.push_back(table.values[static_cast<size_t>(token * n_cols + i)] * 3.0f);
    }
    INFO(gguf::dtype_info(dtype).name);
    CHECK(got == expected);
  }
}

TEST_CASE("linear_add adds product, bias and post-norm to the residual stream", "[gpu]") {
  for (const DType dtype : {DType::F32, DType::Q4_K}) {
    const TestMatrix matrix(dtype, 48, 256, 1);
    for (const bool post_norm : {false, true}) {
      CudaOps ops(direct_options());
      const auto weight = ops.load_matrix({&matrix.view, 1});
      const auto bias = normal_values(48, 2);
      const auto norm = normal_values(48, 3);
      const auto bias_weight = ops.load_vector(bias);
      const auto norm_weight = ops.load_vector(norm);
      const Buffer input = ops.new_buffer(256);
      const Buffer x = ops.new_buffer(48);
      ops.finish_loading(small_layout(), kVocab);
      const auto before = normal_values(5 * 48, 4);
      const auto values = normal_values(5 * 256, 5);
      const Batch batch = sequence_batch(0, 5);
      ops.begin(batch);
      ops.write_buffer(input, values);
      ops.write_buffer(x, before);
      ops.linear_add({.x = x,
                      .input = input,
                      .weight = weight.get(),
                      .bias = bias_weight.get(),
                      .post_norm = post_norm ? norm_weight.get() : nullptr,
                      .eps = 1e-5f});
      auto branch = multiply_exactly(matrix, as_double(values));
      for (size_t i = 0; i < branch.size(); ++i)
        branch[i] += bias[i % 48];
      if (post_norm) {
        branch = rmsnorm_exactly(std::vector<float>(branch.begin(), branch.end()), norm, 48, 1e-5);
      }
      for (size_t i = 0; i < branch.size(); ++i)
        branch[i] += before[i];
      INFO(gguf::dtype_info(dtype).name << (post_norm ? ", post-norm" : ""));
      CHECK(nmse(ops.read_buffer(x), branch) <= bound(dtype));
    }
  }
}

TEST_CASE("gated_ffn computes both activations and adds the branch", "[gpu]") {
  for (const DType dtype : {DType::F32, DType::Q8_0, DType::Q5_K}) {
    const TestMatrix gate(dtype, 512, 256, 1);
    const TestMatrix up(dtype, 512, 256, 2);
    const TestMatrix down(dtype, 256, 512, 3);
    CudaOps ops(direct_options());
    const auto gate_up = ops.load_gate_up(gate.view, up.view);
    const auto down_weight = ops.load_matrix({&down.view, 1});
    // Small gates, so that the activations are neither lines nor zero.
    auto norm = normal_values(256, 4);
    for (float& value : norm)
      value *= 0.1f;
    const auto norm_weight = ops.load_vector(norm);
    const Buffer x = ops.new_buffer(256);
    ops.finish_loading(small_layout(), kVocab);
    for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
      const auto before = normal_values(4 * 256, 5);
      const Batch batch = sequence_batch(0, 4);
      ops.begin(batch);
      ops.write_buffer(x, before);
      ops.gated_ffn({.x = x,
                     .norm = norm_weight.get(),
                     .gate_up = gate_up.get(),
                     .down = down_weight.get(),
                     .activation = activation,
                     .eps = 1e-5f});
      const auto h = rmsnorm_exactly(before, norm, 256, 1e-5);
      auto f = multiply_exactly(gate, h);
      const auto u = multiply_exactly(up, h);
      for (size_t i = 0; i < f.size(); ++i) {
        const double inner = std::sqrt(2.0 / M_PI) * (f[i] + 0.044715 * f[i] * f[i] * f[i]);
        f[i] *= activation == Activation::kSilu ? 1.0 / (1.0 + std::exp(-f[i]))
                                                : 0.5 * (1.0 + std::tanh(inner));
        f[i] *= u[i];
      }
      auto expected = multiply_exactly(down, f);
      for (size_t i = 0; i < expected.size(); ++i)
        expected[i] += before[i];
      INFO(gguf::dtype_info(dtype).name);
      CHECK(nmse(ops.read_buffer(x), expected) <= 3 * bound(dtype));
    }
  }
}

TEST_CASE("rope_store normalises and turns queries and keys as the definition says", "[gpu]") {
  constexpr int kHeadDim = 24;
  constexpr HeadShape kHeads{.n_heads = 9, .n_kv_heads = 3, .head_dim = kHeadDim};
  for (const RopeStyle style : {RopeStyle::kNorm, RopeStyle::kNeox}) {
    for (const bool with_norm : {false, true}) {
      CudaOps ops(direct_options());
      const auto norm = normal_values(kHeadDim, 1);
      const auto norm_weight = ops.load_vector(norm);
      const RopeId rope =
          ops.new_rope(make_rope({.style = style, .n_dims = 16, .freq_base = 50.0}));
      const Buffer qkv = ops.new_buffer(kHeads.qkv_cols());
      KvLayout layout = small_layout();
      layout.shape = {.n_kv_heads = 3, .head_dim = kHeadDim};
      ops.finish_loading(layout, kVocab);
      const auto before = normal_values(4 * kHeads.qkv_cols(), 2);
      const Batch batch = sequence_batch(20, 4);
      ops.begin(batch);
      ops.write_buffer(qkv, before);
      ops.rope_store({.qkv = qkv,
                      .heads = kHeads,
                      .layer_idx = 1,
                      .q_norm = with_norm ? norm_weight.get() : nullptr,
                      .k_norm = with_norm ? norm_weight.get() : nullptr,
                      .eps = 1e-6f,
                      .rope = rope});
      const auto got = ops.read_buffer(qkv);
      std::vector<double> expected;
      for (size_t head = 0; head < got.size() / kHeadDim; ++head) {
        const std::vector<float> own(
            before.begin() + static_cast<std::ptrdiff_t>(head * kHeadDim),
            before.begin() + static_cast<std::ptrdiff_t>((head + 1) * kHeadDim));
        std::vector<double> values = as_double(own);
        const bool is_v = head % 15 >= 12;
        if (with_norm && !is_v) values = rmsnorm_exactly(own, norm, kHeadDim, 1e-6);
        for (size_t i = 0; i < 8 && !is_v; ++i) {
          const double angle = static_cast<double>(20 + head / 15) *
                               std::pow(50.0, -2.0 * static_cast<double>(i) / 16);
          const size_t first = style == RopeStyle::kNorm ? 2 * i : i;
          const size_t second = style == RopeStyle::kNorm ? 2 * i + 1 : i + 8;
          const double a = values[first];
          const double b = values[second];
          values[first] = a * std::cos(angle) - b * std::sin(angle);
          values[second] = a * std::sin(angle) + b * std::cos(angle);
        }
        expected.insert(expected.end(), values.begin(), values.end());
      }
      CHECK(nmse(got, expected) <= 1e-10);
    }
  }
}

namespace {

Attention attention_args(float scale, float softcap = 0.0f, int window = 0) {
  Attention args;
  args.scale = scale;
  args.softcap = softcap;
  args.window = window;
  return args;
}

/// Two sequences in one cache whose blocks are neither in order nor adjacent.
struct AttentionCase {
  HeadShape heads;
  DType dtype;
  int context;
  CudaOps ops;
  RopeId rope;
  Buffer qkv;
  Buffer out;
  std::vector<std::vector<float>> rows;  // by sequence, (context, qkv_cols)
  static constexpr int kBlockSize = 16;

  static CudaOpsOptions options(int context) {
    CudaOpsOptions result = direct_options();
    result.max_tokens = 2 * context;
    result.max_rows = 2;
    result.max_context = context;
    return result;
  }

  AttentionCase(HeadShape shape, DType type, int n_context)
      : heads(shape), dtype(type), context(n_context), ops(options(n_context)) {
    rope = ops.new_rope({});
    qkv = ops.new_buffer(heads.qkv_cols());
    out = ops.new_buffer(heads.q_cols() + 3);
    const int n_blocks = (context + kBlockSize - 1) / kBlockSize;
    ops.finish_loading({.dtype = dtype,
                        .n_layers = 2,
                        .n_blocks = 2 * n_blocks,
                        .block_size = kBlockSize,
                        .shape = {.n_kv_heads = heads.n_kv_heads, .head_dim = heads.head_dim}},
                       kVocab);
    for (uint64_t seq = 0; seq < 2; ++seq)
      rows.push_back(normal_values(int64_t{context} * heads.qkv_cols(), 11 + seq));
  }

  /// Sequence s has blocks s, s + 2, ... in descending order.
  int32_t block(int seq, int idx) const {
    const int n_blocks = (context + kBlockSize - 1) / kBlockSize;
    return 2 * (n_blocks - 1 - idx) + seq;
  }

  void add(Batch& batch, std::vector<float>& input, int seq, int begin, int end) const {
    if (batch.query_starts.empty()) batch.query_starts.push_back(0);
    batch.max_blocks_per_seq = (context + kBlockSize - 1) / kBlockSize;
    for (int i = begin; i < end; ++i) {
      batch.token_ids.push_back(0);
      batch.positions.push_back(i);
      batch.slot_mapping.push_back(block(seq, i / kBlockSize) * kBlockSize + i % kBlockSize);
    }
    const auto& all = rows[static_cast<size_t>(seq)];
    input.insert(input.end(), all.begin() + int64_t{begin} * heads.qkv_cols(),
                 all.begin() + int64_t{end} * heads.qkv_cols());
    batch.query_starts.push_back(batch.n_tokens());
    batch.context_lens.push_back(end);
    for (int i = 0; i < batch.max_blocks_per_seq; ++i)
      batch.block_tables.push_back(i <= (end - 1) / kBlockSize ? block(seq, i) : -1);
  }

  /// Writes the keys and values of the batch's tokens.
  void store(const Batch& batch, const std::vector<float>& input) {
    ops.begin(batch);
    ops.write_buffer(qkv, input);
    ops.rope_store({.qkv = qkv, .heads = heads, .layer_idx = 1, .rope = rope});
  }

  /// out of the batch's tokens, the 3 columns before the heads left out.
  std::vector<float> run(const Batch& batch, const std::vector<float>& input, Attention args) {
    store(batch, input);
    ops.write_buffer(
        out, std::vector<float>(
                 static_cast<size_t>(batch.n_tokens()) * static_cast<size_t>(out.n_cols), 7.0f));
    args.out = out;
    args.qkv = qkv;
    args.heads = heads;
    args.layer_idx = 1;
    args.out_col = 3;
    ops.attention(args);
    const auto all = ops.read_buffer(out);
    std::vector<float> result;
    for (size_t i = 0; i < all.size(); ++i) {
      if (i % static_cast<size_t>(out.n_cols) < 3) {
        CHECK(all[i] == 7.0f);
      } else {
        result.push_back(all[i]);
      }
    }
    return result;
  }

  float in_cache(float value) const {
    if (dtype == DType::F16) return gguf::half_to_float(gguf::float_to_half(value));
    if (dtype == DType::BF16) return gguf::bfloat_to_float(gguf::float_to_bfloat(value));
    return value;
  }

  std::vector<double> expected(int seq, int begin, int end, const Attention& args) const {
    const auto& all = rows[static_cast<size_t>(seq)];
    const auto stride = static_cast<size_t>(heads.qkv_cols());
    const auto head_dim = static_cast<size_t>(heads.head_dim);
    std::vector<double> result;
    for (int token = begin; token < end; ++token) {
      for (int head = 0; head < heads.n_heads; ++head) {
        const int kv_head = head / (heads.n_heads / heads.n_kv_heads);
        const float* q =
            &all[static_cast<size_t>(token) * stride + static_cast<size_t>(head) * head_dim];
        std::vector<double> sum(head_dim, 0.0);
        double total = 0.0;
        for (int p = 0; p <= token; ++p) {
          if (args.window > 0 && token - p >= args.window) continue;
          const float* k = &all[static_cast<size_t>(p) * stride +
                                static_cast<size_t>(heads.n_heads + kv_head) * head_dim];
          const float* v = k + heads.kv_cols();
          double score = 0.0;
          for (size_t i = 0; i < head_dim; ++i)
            score += static_cast<double>(q[i]) * in_cache(k[i]);
          score *= args.scale;
          if (args.softcap > 0.0f) score = args.softcap * std::tanh(score / args.softcap);
          total += std::exp(score);
          for (size_t i = 0; i < head_dim; ++i)
            sum[i] += std::exp(score) * in_cache(v[i]);
        }
        for (const double value : sum)
          result.push_back(value / total);
      }
    }
    return result;
  }
};

}  // namespace

TEST_CASE("Attention is softmax over the pages of the token's own sequence", "[gpu]") {
  const std::vector<HeadShape> shapes{{.n_heads = 4, .n_kv_heads = 2, .head_dim = 64},
                                      {.n_heads = 9, .n_kv_heads = 1, .head_dim = 24},
                                      {.n_heads = 2, .n_kv_heads = 2, .head_dim = 256},
                                      {.n_heads = 3, .n_kv_heads = 1, .head_dim = 128}};
  for (const HeadShape& shape : shapes) {
    for (const DType dtype : {DType::F32, DType::F16, DType::BF16}) {
      AttentionCase test(shape, dtype, 300);
      for (const int window : {0, 5, 270}) {
        for (const float softcap : {0.0f, 2.0f}) {
          const Attention args = attention_args(0.2f, softcap, window);
          Batch fill;
          std::vector<float> input;
          test.add(fill, input, 0, 0, 290);
          test.add(fill, input, 1, 0, 250);
          test.store(fill, input);
          Batch batch;
          input.clear();
          test.add(batch, input, 0, 290, 300);
          test.add(batch, input, 1, 250, 251);
          auto want = test.expected(0, 290, 300, args);
          const auto second = test.expected(1, 250, 251, args);
          want.insert(want.end(), second.begin(), second.end());
          INFO(shape.n_heads << "/" << shape.n_kv_heads << " heads of " << shape.head_dim << ", "
                             << gguf::dtype_info(dtype).name << ", window " << window << ", cap "
                             << softcap);
          CHECK(nmse(test.run(batch, input, args), want) <= 1e-10);
          if (tests::is_emulated() && dtype != DType::F16) break;
        }
        if (tests::is_emulated() && dtype != DType::F16) break;
      }
    }
  }
}

TEST_CASE("Attention holds its bound on shapes drawn at random", "[gpu]") {
  std::mt19937 random(7);
  const auto between = [&](int low, int high) {
    return low + static_cast<int>(random() % static_cast<unsigned>(high - low + 1));
  };
  const DType types[] = {DType::F32, DType::F16, DType::BF16};
  const int n_cases = tests::is_emulated() ? 8 : 80;
  for (int i = 0; i < n_cases; ++i) {
    const int n_kv_heads = between(1, 3);
    const HeadShape shape{.n_heads = n_kv_heads * between(1, 11),
                          .n_kv_heads = n_kv_heads,
                          .head_dim = 4 * between(1, tests::is_emulated() ? 24 : 64)};
    const int context = between(2, tests::is_emulated() ? 300 : 900);
    AttentionCase test(shape, types[random() % 3], context);
    const int n_new = between(1, std::min(context, 7));
    const Attention args = attention_args(0.1f, random() % 2 == 0 ? 0.0f : 3.0f,
                                          random() % 2 == 0 ? 0 : between(1, context));
    std::vector<float> input;
    Batch fill;
    if (context > n_new) {
      test.add(fill, input, 0, 0, context - n_new);
      test.store(fill, input);
    }
    Batch batch;
    input.clear();
    test.add(batch, input, 0, context - n_new, context);
    INFO(shape.n_heads << "/" << n_kv_heads << " heads of " << shape.head_dim << ", context "
                       << context << ", window " << args.window);
    CHECK(nmse(test.run(batch, input, args), test.expected(0, context - n_new, context, args)) <=
          1e-10);
  }
}

TEST_CASE("Attention gives a token the same bits however its prompt is cut", "[gpu]") {
  AttentionCase test({.n_heads = 4, .n_kv_heads = 2, .head_dim = 32}, DType::F16, 270);
  const Attention args = attention_args(0.2f);
  Batch whole;
  std::vector<float> input;
  test.add(whole, input, 0, 0, 270);
  const auto expected = test.run(whole, input, args);
  in_both_orders([&] {
    Batch first;
    std::vector<float> first_input;
    test.add(first, first_input, 0, 0, 260);
    test.store(first, first_input);
    for (int i = 260; i < 270; ++i) {
      Batch one;
      std::vector<float> own;
      test.add(one, own, 1, 3 * (i - 260), 3 * (i - 260) + 2);
      test.add(one, own, 0, i, i + 1);
      const auto got = test.run(one, own, args);
      const auto n = static_cast<std::ptrdiff_t>(test.heads.q_cols());
      CHECK(std::equal(got.end() - n, got.end(), expected.begin() + i * n));
    }
  });
}

TEST_CASE("Attention of large scores does not overflow", "[gpu]") {
  AttentionCase test({.n_heads = 2, .n_kv_heads = 1, .head_dim = 16}, DType::F32, 20);
  Batch batch;
  std::vector<float> input;
  test.add(batch, input, 0, 0, 20);
  for (const float value : test.run(batch, input, attention_args(1e4f)))
    CHECK(std::isfinite(value));
}

namespace {

/// A head alone, whose logits are products of random rows.
struct HeadCase {
  TestMatrix matrix;
  CudaOps ops;
  std::vector<float> norm = normal_values(64, 2);
  std::unique_ptr<const WeightVector> norm_weight;
  std::unique_ptr<const WeightMatrix> weight;
  Buffer x;

  explicit HeadCase(int n_vocab, CudaOpsOptions options = direct_options())
      : matrix(DType::F32, n_vocab, 64, 1), ops(options) {
    norm_weight = ops.load_vector(norm);
    weight = ops.load_matrix({&matrix.view, 1});
    x = ops.new_buffer(64);
    ops.finish_loading(small_layout(), n_vocab);
  }

  void run(const Batch& batch, const std::vector<float>& input, float softcap = 0.0f) {
    ops.begin(batch);
    ops.write_buffer(x, input);
    ops.keep_sampled_rows({x});
    ops.head({.x = x,
              .norm = norm_weight.get(),
              .weight = weight.get(),
              .softcap = softcap,
              .eps = 1e-5f});
  }
};

}  // namespace

TEST_CASE("head computes the logits of the sampled rows, capped", "[gpu]") {
  constexpr int kTokens = 300;
  HeadCase test(kTokens);
  const auto input = normal_values(7 * 64, 3);
  Batch batch = sequence_batch(0, 7);
  batch.sample_rows.erase(batch.sample_rows.begin() + 2);
  batch.sample_rows.erase(batch.sample_rows.begin() + 4);
  for (const float softcap : {0.0f, 5.0f}) {
    test.run(batch, input, softcap);
    auto all = multiply_exactly(test.matrix, rmsnorm_exactly(input, test.norm, 64, 1e-5));
    for (double& logit : all)
      logit = softcap > 0.0f ? softcap * std::tanh(logit / softcap) : logit;
    for (size_t i = 0; i < batch.sample_rows.size(); ++i) {
      const auto row = test.ops.logits(static_cast<int>(i));
      const auto from = all.begin() + batch.sample_rows[i].token_idx * kTokens;
      CHECK(nmse(row, std::vector<double>(from, from + kTokens)) <= 1e-10);
    }
  }
}

TEST_CASE("sample chooses as the sampler does, greedily and by chance", "[gpu]") {
  constexpr int kTokens = 3000;
  HeadCase test(kTokens);
  const auto input = normal_values(6 * 64, 3);
  Batch batch = sequence_batch(0, 6);
  SamplingParams greedy;
  greedy.temperature = 0.0f;
  SamplingParams biased = greedy;
  biased.logit_bias = {{17, 1000.0f}};
  SamplingParams random;
  SamplingParams with_logprobs = greedy;
  with_logprobs.n_logprobs = 2;
  const std::vector<int32_t> history{1, 2, 3};
  const SamplingParams* params[] = {&greedy, &biased, &random, &with_logprobs, &greedy, &greedy};
  for (size_t i = 0; i < 6; ++i) {
    batch.sample_rows[i].params = params[i];
    batch.sample_rows[i].history = &history;
    batch.sample_rows[i].seed = 77 + i;
  }
  test.run(batch, input);
  std::vector<std::vector<float>> logits;
  for (int i = 0; i < 6; ++i) {
    const auto row = test.ops.logits(i);
    logits.emplace_back(row.begin(), row.end());
  }
  const auto got = test.ops.sample();
  REQUIRE(got.size() == 6);
  Sampler sampler(kTokens);
  for (size_t i = 0; i < 6; ++i) {
    const SampledToken want = sampler.sample(logits[i], batch.sample_rows[i]);
    CHECK(got[i].token == want.token);
    CHECK(got[i].error == want.error);
    CHECK(got[i].top_logprobs.size() == want.top_logprobs.size());
  }
  CHECK(got[1].token == 17);
}

TEST_CASE("A greedy row whose logits are no numbers gets the sampler's error", "[gpu]") {
  HeadCase test(100);
  auto input = normal_values(2 * 64, 3);
  input[64] = NAN;
  Batch batch = sequence_batch(0, 2);
  SamplingParams greedy;
  greedy.temperature = 0.0f;
  const std::vector<int32_t> history{1};
  for (SampleRow& row : batch.sample_rows) {
    row.params = &greedy;
    row.history = &history;
  }
  test.run(batch, input);
  const auto got = test.ops.sample();
  CHECK(got[0].error.empty());
  CHECK_THAT(got[1].error, Catch::Contains("NaN"));
}

TEST_CASE("Of equal best logits the token with the lowest id is chosen", "[gpu]") {
  HeadCase test(2000);
  // All logits are zero.
  const auto input = std::vector<float>(64, 0.0f);
  Batch batch = sequence_batch(0, 1);
  SamplingParams greedy;
  greedy.temperature = 0.0f;
  const std::vector<int32_t> history{1};
  batch.sample_rows[0].params = &greedy;
  batch.sample_rows[0].history = &history;
  test.run(batch, input);
  CHECK(test.ops.sample()[0].token == 0);
}

TEST_CASE("Heads of a size that attention can't do are refused", "[gpu]") {
  CudaOps ops(direct_options());
  KvLayout layout = small_layout();
  layout.shape.head_dim = 512;
  CHECK_THROWS_WITH(ops.finish_loading(layout, kVocab), Catch::Contains("heads of 512 values"));
}

TEST_CASE("Experts and latent attention are refused when they are loaded", "[gpu]") {
  CudaOps ops(direct_options());
  CHECK_THROWS_WITH(ops.load_experts({}), Catch::Contains("mixtures of experts"));
  CHECK_THROWS_WITH(ops.load_heads({}, HeadProduct::kPlain), Catch::Contains("latent attention"));
}

}  // namespace dsctl::engine
