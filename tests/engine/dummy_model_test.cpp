#include "engine/dummy_model.h"

#include <cstring>
#include <map>

#include "engine/error.h"
#include "engine/memory_bandwidth.h"
#include "engine/model_shapes.h"
#include "engine/speed_run.h"
#include "gguf/quants/all.h"
#include "tests/support/catch.h"
#include "tests/support/engine_models.h"

namespace dsctl::engine {
namespace {

using Catch::Contains;

/// A model that differs from its big sisters in nothing but size.
gguf::GgufFile small_shape() {
  DenseModel model = kQwen2_7b;
  model.n_layers = 4;
  model.dim = 256;
  model.n_heads = 4;
  model.n_kv_heads = 2;
  model.head_dim = 64;
  model.ffn_dim = 512;
  model.vocab_size = 320;
  model.context_length = 64;
  return open_header(dense_header(model));
}

std::string bytes_of(const gguf::GgufFile& file, const std::string& name) {
  const gguf::TensorInfo* tensor = file.find_tensor(name);
  REQUIRE(tensor != nullptr);
  return {reinterpret_cast<const char*>(tensor->data), static_cast<size_t>(tensor->size_bytes)};
}

TEST_CASE("A dummy has the header's tensors and finite values that differ") {
  const gguf::GgufFile header = small_shape();
  const gguf::GgufFile dummy = make_dummy_model(header, {});
  REQUIRE(dummy.tensors().size() == header.tensors().size());
  for (size_t i = 0; i < header.tensors().size(); ++i) {
    const gguf::TensorInfo& tensor = dummy.tensors()[i];
    CHECK(tensor.name == header.tensors()[i].name);
    CHECK(tensor.dtype == header.tensors()[i].dtype);
    CHECK(tensor.dims == header.tensors()[i].dims);
    std::vector<float> values(static_cast<size_t>(tensor.n_elems()));
    gguf::dequantize_row(tensor.dtype, tensor.data, values.data(), tensor.n_elems());
    double sum = 0;
    double squares = 0;
    for (const float value : values) {
      sum += value;
      squares += static_cast<double>(value) * value;
    }
    const auto n = static_cast<double>(values.size());
    INFO(tensor.name);
    if (tensor.name.ends_with("norm.weight")) {
      CHECK(sum / n == Approx(1.0).epsilon(0.05));
    } else {
      CHECK(std::sqrt(squares / n) == Approx(0.02).epsilon(0.25));
    }
  }
  // Layers are not copies of each other.
  CHECK(bytes_of(dummy, "blk.0.ffn_up.weight") != bytes_of(dummy, "blk.1.ffn_up.weight"));
}

TEST_CASE("The same seed makes the same model, on any number of threads") {
  const gguf::GgufFile header = small_shape();
  const auto first = make_dummy_model(header, {.seed = 5, .n_threads = 1});
  const auto again = make_dummy_model(header, {.seed = 5, .n_threads = 3});
  const auto other = make_dummy_model(header, {.seed = 6});
  const std::string name = "blk.2.attn_q.weight";
  CHECK(bytes_of(first, name) == bytes_of(again, name));
  CHECK(bytes_of(first, name) != bytes_of(other, name));
}

TEST_CASE("A dummy can have fewer layers, not more") {
  const gguf::GgufFile header = small_shape();
  const auto dummy = make_dummy_model(header, {.n_layers = 2});
  CHECK(dummy.get_uint("qwen2.block_count") == 2);
  CHECK(dummy.find_tensor("blk.1.attn_q.weight") != nullptr);
  CHECK(dummy.find_tensor("blk.2.attn_q.weight") == nullptr);
  CHECK(dummy.find_tensor("output.weight") != nullptr);
  CHECK_THROWS_WITH(make_dummy_model(header, {.n_layers = 5}), Contains("the model has 4"));
}

TEST_CASE("A dummy that memory doesn't hold is refused with the numbers") {
  CHECK_THROWS_WITH(make_dummy_model(open_model_shape("deepseek-r1"), {}),
                    Contains("random weights of 40") && Contains("are free: use fewer layers"));
}

TEST_CASE("Every named shape opens, and is as large as the model is known to be") {
  const std::map<std::string, double> billions{{"llama3-8b", 8.03},    {"llama3-70b", 70.55},
                                               {"qwen2.5-7b", 7.62},   {"qwen2.5-14b", 14.77},
                                               {"qwen2.5-32b", 32.76}, {"qwen2.5-72b", 72.71},
                                               {"deepseek-r1", 671.03}};
  for (const auto& [name, count] : billions) {
    INFO(name);
    CHECK(is_model_shape(name));
    int64_t n_parameters = 0;
    const gguf::GgufFile file = open_model_shape(name);
    for (const gguf::TensorInfo& tensor : file.tensors())
      n_parameters += tensor.n_elems();
    CHECK(static_cast<double>(n_parameters) / 1e9 == Approx(count).epsilon(0.001));
  }
  CHECK_FALSE(is_model_shape("llama9"));
  CHECK_THROWS_WITH(open_model_shape("llama9"), Contains("expected one of"));
}

TEST_CASE("A speed run computes prompts and tokens of several sequences after a context") {
  const gguf::GgufFile dummy = make_dummy_model(small_shape(), {});
  SpeedRunOptions options;
  options.max_seqs = 3;
  options.max_tokens = 40;
  options.n_batch = 16;
  options.n_threads = 2;
  SpeedRun run(dummy, options);
  CHECK(run.limits().n_kv_blocks == 3 * 3);
  // 4 layers of 2 heads of 64 keys and values, which the reference keeps in f32.
  options.cpu_kernels = CpuKernels::kReference;
  CHECK(SpeedRun(dummy, options).kv_bytes_per_token() == 4 * 2 * 128 * 4);
  run.fill(3, 20);
  CHECK(run.prompt({.n_seqs = 3, .depth = 20, .n_tokens = 20}) > 0);
  CHECK(run.generate({.n_seqs = 3, .depth = 20, .n_tokens = 5}) > 0);
  CHECK(run.generate({.n_seqs = 1, .depth = 0, .n_tokens = 1}) > 0);
}

TEST_CASE("A speed run beyond the model's context or the memory is refused") {
  const gguf::GgufFile dummy = make_dummy_model(small_shape(), {});
  SpeedRunOptions options;
  options.n_threads = 1;
  options.max_tokens = 65;
  CHECK_THROWS_WITH(SpeedRun(dummy, options), Contains("65 tokens") && Contains("made for 64"));
  options.max_tokens = 64;
  options.max_seqs = 1 << 30;
  CHECK_THROWS_WITH(SpeedRun(dummy, options), Contains("bytes of memory"));
}

TEST_CASE("The memory's bandwidth is measured over more than the caches") {
  const MemoryBandwidth bandwidth = measure_memory_bandwidth(2);
  CHECK(bandwidth.read_gb_s > 0);
  CHECK(bandwidth.n_threads == 2);
  CHECK(bandwidth.buffer_bytes >= 1 << 20);
}

}  // namespace
}  // namespace dsctl::engine
