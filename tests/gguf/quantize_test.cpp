#include "gguf/quantize.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "gguf/error.h"
#include "gguf/gguf_writer.h"
#include "gguf/quants/all.h"
#include "gguf/quants/encode.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"

namespace dsctl::gguf {
namespace {

using Catch::Matchers::Contains;
namespace fs = std::filesystem;

std::vector<float> values_of(uint32_t seed, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  uint32_t state = seed * 2654435761U + 1;
  for (float& value : values) {
    state = state * 1664525U + 1013904223U;
    value = static_cast<float>(static_cast<int32_t>(state >> 8) - (1 << 23)) / (1 << 25);
  }
  return values;
}

struct ModelShape {
  std::string architecture = "llama";
  int n_layers = 2;
  int64_t dim = 256;
  int64_t n_experts = 0;
  bool is_tied = false;
};

/// Every kind of tensor that the rules tell apart.
GgufWriter model(const ModelShape& shape) {
  GgufWriter writer;
  const std::string& arch = shape.architecture;
  writer.add("general.architecture", arch);
  writer.add("general.file_type", uint32_t{0});
  writer.add(arch + ".block_count", static_cast<uint32_t>(shape.n_layers));
  writer.add(arch + ".attention.head_count", uint32_t{8});
  writer.add(arch + ".attention.head_count_kv", uint32_t{2});
  if (shape.n_experts > 0) {
    writer.add(arch + ".expert_count", static_cast<uint32_t>(shape.n_experts));
  }
  writer.add("tokenizer.ggml.model", "none");
  uint32_t seed = 1;
  const auto add = [&](const std::string& name, std::initializer_list<int64_t> dims) {
    int64_t count = 1;
    for (const int64_t dim : dims)
      count *= dim;
    writer.add_tensor(name, dims, values_of(seed++, count));
  };
  const int64_t dim = shape.dim;
  add("token_embd.weight", {dim, 5});
  for (int i = 0; i < shape.n_layers; ++i) {
    const std::string prefix = "blk." + std::to_string(i) + ".";
    add(prefix + "attn_norm.weight", {dim});
    for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_output"})
      add(prefix + name + ".weight", {dim, 3});
    if (shape.n_experts > 0) {
      add(prefix + "ffn_gate_inp.weight", {dim, shape.n_experts});
      for (const char* name : {"ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"})
        add(prefix + name + ".weight", {dim, 3, shape.n_experts});
    } else {
      for (const char* name : {"ffn_gate", "ffn_up", "ffn_down"})
        add(prefix + name + ".weight", {dim, 3});
    }
  }
  add("output_norm.weight", {dim});
  if (!shape.is_tied) add("output.weight", {dim, 5});
  return writer;
}

GgufFile write_model(const fs::path& path, const ModelShape& shape = {}) {
  model(shape).write(path);
  return GgufFile::open(path);
}

QuantizeOptions options_for(std::string_view type) {
  QuantizeOptions options;
  options.file_type = file_type_from_name(type).value();
  return options;
}

std::string read_bytes(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::map<std::string, DType> types_of(const GgufFile& file, const QuantizeOptions& options) {
  std::map<std::string, DType> types;
  for (const QuantizeStep& step : plan_quantize(file, options).steps)
    types[std::string(step.source.name)] = step.choice.dtype;
  return types;
}

std::vector<float> floats(const TensorInfo& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.n_elems()));
  dequantize_row(tensor.dtype, tensor.data, values.data(), tensor.n_elems());
  return values;
}

TEST_CASE("quantize writes every type's rows as the encoder makes them") {
  const tests::TempDir dir;
  const GgufFile source = write_model(dir.path() / "source.gguf");
  for (const FileType& type : file_types()) {
    if (type.name == "Q2_K_S") continue;  // needs a matrix
    INFO(type.name);
    const auto plan = plan_quantize(source, options_for(type.name));
    quantize(source, plan, dir.path() / "out.gguf", {.n_threads = 2});
    const GgufFile result = GgufFile::open(dir.path() / "out.gguf");
    CHECK(result.get_uint("general.file_type") == type.id);
    CHECK(result.get_uint("general.quantization_version") == 2);
    CHECK(result.get_string("tokenizer.ggml.model") == "none");
    REQUIRE(result.tensors().size() == source.tensors().size());
    int64_t size = 0;
    for (const TensorInfo& tensor : result.tensors()) {
      const TensorInfo* before = source.find_tensor(tensor.name);
      REQUIRE(before != nullptr);
      CHECK(tensor.dims == before->dims);
      std::vector<std::byte> expected(static_cast<size_t>(tensor.size_bytes));
      const auto values = floats(*before);
      quantize_rows(tensor.dtype, values.data(), expected.data(), tensor.n_rows(), tensor.dims[0],
                    nullptr);
      CHECK(std::equal(expected.begin(), expected.end(), tensor.data));
      size += tensor.size_bytes;
    }
    CHECK(size == plan.result_bytes);
  }
}

TEST_CASE("quantize gives the same bytes for any number of threads") {
  const tests::TempDir dir;
  const GgufFile source = write_model(dir.path() / "source.gguf", {.n_layers = 5});
  const auto plan = plan_quantize(source, options_for("Q4_K_M"));
  quantize(source, plan, dir.path() / "one.gguf", {.n_threads = 1});
  quantize(source, plan, dir.path() / "seven.gguf", {.n_threads = 7});
  CHECK(read_bytes(dir.path() / "one.gguf") == read_bytes(dir.path() / "seven.gguf"));
}

TEST_CASE("quantize keeps the shards of a split when asked") {
  const tests::TempDir dir;
  const auto paths = model({}).write_split(dir.path(), "source", {.n_shards = 3});
  const GgufFile source = GgufFile::open(paths[0]);
  QuantizeOptions options = options_for("Q8_0");
  quantize(source, plan_quantize(source, options), dir.path() / "joined.gguf", {.n_threads = 1});
  options.keep_split = true;
  const auto written =
      quantize(source, plan_quantize(source, options), dir.path() / "kept.gguf", {.n_threads = 2});
  REQUIRE(written.size() == 3);
  CHECK(written[1].filename() == "kept-00002-of-00003.gguf");
  const GgufFile kept = GgufFile::open(written[0]);
  const GgufFile joined = GgufFile::open(dir.path() / "joined.gguf");
  CHECK(joined.find("split.count") == nullptr);
  for (const TensorInfo& tensor : joined.tensors()) {
    const TensorInfo* twin = kept.find_tensor(tensor.name);
    REQUIRE(twin != nullptr);
    CHECK(twin->shard_idx == source.find_tensor(tensor.name)->shard_idx);
    CHECK(std::equal(tensor.data, tensor.data + tensor.size_bytes, twin->data));
  }
}

TEST_CASE("quantize refuses a quantised source unless allowed") {
  const tests::TempDir dir;
  const GgufFile source = write_model(dir.path() / "source.gguf");
  quantize(source, plan_quantize(source, options_for("Q8_0")), dir.path() / "q8.gguf", {});
  const GgufFile quantized = GgufFile::open(dir.path() / "q8.gguf");
  QuantizeOptions options = options_for("Q4_0");
  CHECK_THROWS_WITH(plan_quantize(quantized, options),
                    Contains("is Q8_0 already") && Contains("--allow-requantize"));
  options.allow_requantize = true;
  const auto plan = plan_quantize(quantized, options);
  CHECK(std::any_of(plan.steps.begin(), plan.steps.end(),
                    [](const auto& step) { return step.is_requantized; }));
  CHECK_NOTHROW(quantize(quantized, plan, dir.path() / "q4.gguf", {}));
  // The same type is a copy, never a loss.
  CHECK_NOTHROW(plan_quantize(quantized, options_for("Q8_0")));
}

TEST_CASE("quantize names a value that is not finite and leaves nothing behind") {
  const tests::TempDir dir;
  GgufWriter writer = model({});
  auto values = values_of(1, 512);
  values[256 + 7] = NAN;
  writer.add_tensor("blk.1.extra.weight", {256, 2}, values);
  writer.write(dir.path() / "source.gguf");
  const GgufFile source = GgufFile::open(dir.path() / "source.gguf");
  const auto plan = plan_quantize(source, options_for("Q4_0"));
  CHECK_THROWS_WITH(quantize(source, plan, dir.path() / "out.gguf", {.n_threads = 3}),
                    Contains("blk.1.extra.weight: value 7 of row 1 is not finite"));
  CHECK(std::distance(fs::directory_iterator(dir.path()), {}) == 1);
}

TEST_CASE("quantize to F16 refuses what F16 can't hold") {
  const tests::TempDir dir;
  GgufWriter writer = model({});
  writer.add_tensor("blk.1.extra.weight", {256, 2}, std::vector<float>(512, 70000.0F));
  writer.write(dir.path() / "source.gguf");
  const GgufFile source = GgufFile::open(dir.path() / "source.gguf");
  CHECK_THROWS_WITH(
      quantize(source, plan_quantize(source, options_for("F16")), dir.path() / "out.gguf", {}),
      Contains("beyond the range of F16"));
  CHECK_NOTHROW(
      quantize(source, plan_quantize(source, options_for("BF16")), dir.path() / "out.gguf", {}));
}

TEST_CASE("quantize does not write over the model that it reads") {
  const tests::TempDir dir;
  const GgufFile source = write_model(dir.path() / "source.gguf");
  const std::string before = read_bytes(dir.path() / "source.gguf");
  CHECK_THROWS_WITH(
      quantize(source, plan_quantize(source, options_for("Q8_0")), dir.path() / "source.gguf", {}),
      Contains("is the model that is read"));
  CHECK(read_bytes(dir.path() / "source.gguf") == before);
}

TEST_CASE("quantize stops when its progress says so") {
  const tests::TempDir dir;
  const GgufFile source = write_model(dir.path() / "source.gguf");
  // The last report comes with everything done and is not asked; an earlier one may never come.
  int n_reports = 0;
  quantize(source, plan_quantize(source, options_for("Q8_0")), dir.path() / "out.gguf",
           {.n_threads = 1, .progress = [&](int64_t done, int64_t total) {
              ++n_reports;
              CHECK(done <= total);
              return true;
            }});
  CHECK(n_reports >= 1);
}

TEST_CASE("quantize gives each expert its own importance") {
  const tests::TempDir dir;
  const ModelShape shape{.n_layers = 1, .n_experts = 3};
  const GgufFile source = write_model(dir.path() / "source.gguf", shape);
  ImportanceMatrix matrix;
  ImportanceEntry entry;
  entry.name = "blk.0.ffn_down_exps.weight";
  entry.n_cols = 256;
  entry.counts = {4, 0, 2};  // the second expert was never chosen: its columns weigh 1
  entry.sums = values_of(99, 3 * 256);
  for (float& sum : entry.sums)
    sum = sum * sum;
  matrix.entries.push_back(entry);
  matrix.datasets = {"text.txt"};
  matrix.n_chunks = 3;
  QuantizeOptions options = options_for("Q4_K_S");
  options.matrix = &matrix;
  options.matrix_name = "m.gguf";
  const auto plan = plan_quantize(source, options);
  CHECK(std::count_if(plan.steps.begin(), plan.steps.end(),
                      [](const auto& step) { return step.lacks_importance; }) > 0);
  quantize(source, plan, dir.path() / "out.gguf", {.n_threads = 2});
  const GgufFile result = GgufFile::open(dir.path() / "out.gguf");
  CHECK(result.get_string("quantize.imatrix.file") == "m.gguf");
  CHECK(result.get_string("quantize.imatrix.dataset") == "text.txt");
  CHECK(result.get_uint("quantize.imatrix.entries_count") == 1);
  CHECK(result.get_uint("quantize.imatrix.chunks_count") == 3);
  const TensorInfo& tensor = *result.find_tensor(entry.name);
  const auto values = floats(*source.find_tensor(entry.name));
  for (size_t expert = 0; expert < 3; ++expert) {
    std::vector<float> importance(256, 1.0F);
    for (size_t i = 0; expert != 1 && i < 256; ++i)
      importance[i] = entry.sums[expert * 256 + i] / entry.counts[expert];
    const auto size = static_cast<size_t>(tensor.size_bytes / 3);
    std::vector<std::byte> expected(size);
    quantize_rows(tensor.dtype, values.data() + expert * 768, expected.data(), 3, 256,
                  importance.data());
    CHECK(std::equal(expected.begin(), expected.end(), tensor.data + expert * size));
  }
}

TEST_CASE("plan_quantize checks the matrix against the model and the type") {
  const tests::TempDir dir;
  const GgufFile source = write_model(dir.path() / "source.gguf");
  CHECK_THROWS_WITH(plan_quantize(source, options_for("Q2_K_S")),
                    Contains("needs an importance matrix"));
  ImportanceMatrix matrix;
  matrix.entries.push_back({"blk.0.attn_q.weight", 128, std::vector<float>(128, 1), {1}});
  QuantizeOptions options = options_for("Q4_0");
  options.matrix = &matrix;
  CHECK_THROWS_WITH(plan_quantize(source, options),
                    Contains("blk.0.attn_q.weight: the importance matrix has 128 values, "
                             "expected 256"));
}

TEST_CASE("choose_types follows the mixtures of llama.cpp") {
  const tests::TempDir dir;
  const GgufFile dense = write_model(dir.path() / "dense.gguf", {.n_layers = 16});
  auto types = types_of(dense, options_for("Q4_K_M"));
  CHECK(types["output.weight"] == DType::Q6_K);
  CHECK(types["token_embd.weight"] == DType::Q4_K);
  CHECK(types["output_norm.weight"] == DType::F32);
  for (int layer = 0; layer < 16; ++layer) {
    INFO(layer);
    // 16 layers: the first two, the last two, and every third between.
    const bool more = layer < 2 || layer >= 14 || (layer - 2) % 3 == 2;
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    CHECK(types[prefix + "ffn_down.weight"] == (more ? DType::Q6_K : DType::Q4_K));
    CHECK(types[prefix + "attn_v.weight"] == (more ? DType::Q6_K : DType::Q4_K));
    CHECK(types[prefix + "attn_q.weight"] == DType::Q4_K);
    CHECK(types[prefix + "attn_norm.weight"] == DType::F32);
  }
  types = types_of(dense, options_for("Q3_K_M"));
  CHECK(types["blk.0.ffn_down.weight"] == DType::Q5_K);
  CHECK(types["blk.1.ffn_down.weight"] == DType::Q4_K);
  CHECK(types["blk.1.attn_v.weight"] == DType::Q5_K);
  CHECK(types["blk.2.attn_v.weight"] == DType::Q4_K);
  CHECK(types["blk.2.attn_output.weight"] == DType::Q4_K);
  types = types_of(dense, options_for("Q2_K"));
  CHECK(types["blk.3.attn_v.weight"] == DType::Q4_K);  // four query heads a key head
  CHECK(types["blk.3.ffn_down.weight"] == DType::Q3_K);
  types = types_of(dense, options_for("IQ4_XS"));
  CHECK(types["blk.1.ffn_down.weight"] == DType::Q5_K);
  CHECK(types["blk.2.ffn_down.weight"] == DType::IQ4_XS);

  const GgufFile tied = write_model(dir.path() / "tied.gguf", {.is_tied = true});
  CHECK(types_of(tied, options_for("Q4_K_M"))["token_embd.weight"] == DType::Q6_K);
  CHECK(types_of(tied, options_for("Q8_0"))["token_embd.weight"] == DType::Q8_0);

  const GgufFile experts =
      write_model(dir.path() / "experts.gguf", {.n_layers = 4, .n_experts = 8});
  types = types_of(experts, options_for("Q4_K_S"));
  CHECK(types["blk.0.attn_k.weight"] == DType::Q8_0);
  CHECK(types["blk.0.attn_v.weight"] == DType::Q8_0);
  CHECK(types["blk.0.attn_output.weight"] == DType::Q5_K);
  CHECK(types["blk.0.ffn_gate_inp.weight"] == DType::F32);
  types = types_of(experts, options_for("MXFP4_MOE"));
  CHECK(types["blk.0.ffn_up_exps.weight"] == DType::MXFP4);
  CHECK(types["blk.0.attn_q.weight"] == DType::Q8_0);
  CHECK(types["output.weight"] == DType::Q8_0);
}

TEST_CASE("choose_types takes another type where rows are no whole blocks") {
  const tests::TempDir dir;
  const GgufFile narrow = write_model(dir.path() / "narrow.gguf", {.dim = 96});
  const std::map<std::string, DType> fallbacks{{"Q2_K", DType::Q4_0},   {"Q3_K_S", DType::Q4_0},
                                               {"Q4_K_S", DType::Q5_0}, {"Q5_K_S", DType::Q5_1},
                                               {"Q6_K", DType::Q8_0},   {"IQ4_XS", DType::IQ4_NL},
                                               {"Q4_0", DType::Q4_0}};
  for (const auto& [name, dtype] : fallbacks) {
    INFO(name);
    const auto types = types_of(narrow, options_for(name));
    CHECK(types.at("blk.1.attn_q.weight") == dtype);
    // 96 is three blocks of 32: with Q4_0 the output is wanted as Q6_K, which falls back too.
    CHECK(types.at("output.weight") == DType::Q8_0);
  }
  const GgufFile odd = write_model(dir.path() / "odd.gguf", {.dim = 40});
  const auto plan = plan_quantize(odd, options_for("Q4_K_M"));
  for (const QuantizeStep& step : plan.steps) {
    if (!may_quantize(step.source)) continue;
    INFO(step.source.name);
    CHECK(step.choice.dtype == DType::F16);
    CHECK(step.choice.wanted.has_value());
  }
  CHECK_NOTHROW(quantize(odd, plan, dir.path() / "out.gguf", {}));
}

TEST_CASE("choose_types heeds the user's wishes") {
  const tests::TempDir dir;
  const GgufFile source = write_model(dir.path() / "source.gguf", {.n_layers = 4});
  QuantizeOptions options = options_for("Q4_K_M");
  options.mixture.pure = true;
  auto types = types_of(source, options);
  CHECK(types["output.weight"] == DType::Q4_K);
  CHECK(types["blk.0.ffn_down.weight"] == DType::Q4_K);

  options = options_for("Q4_K_M");
  options.mixture.output_type = DType::F16;
  options.mixture.embedding_type = DType::Q8_0;
  options.mixture.rules = {{"blk\\.[01]\\.attn_v", DType::Q5_1}, {"attn_v", DType::Q5_0}};
  types = types_of(source, options);
  CHECK(types["output.weight"] == DType::F16);
  CHECK(types["token_embd.weight"] == DType::Q8_0);
  CHECK(types["blk.1.attn_v.weight"] == DType::Q5_1);
  CHECK(types["blk.2.attn_v.weight"] == DType::Q5_0);

  options = options_for("Q4_K_M");
  options.mixture.leave_output = true;
  CHECK(types_of(source, options)["output.weight"] == DType::F32);

  options.mixture.rules = {{"attn_(", DType::Q5_0}};
  CHECK_THROWS_WITH(plan_quantize(source, options), Contains("'attn_('"));
  options.mixture.rules = {{"attn_q", DType::IQ1_S}};
  CHECK_THROWS_WITH(plan_quantize(source, options), Contains("no encoder"));
}

TEST_CASE("file_type_from_name knows the short names, in any case") {
  CHECK(file_type_from_name("q4_k")->name == "Q4_K_M");
  CHECK(file_type_from_name("Q3_K")->id == 12);
  CHECK(file_type_from_name("mxfp4_moe")->dtype == DType::MXFP4);
  CHECK_FALSE(file_type_from_name("Q4"));
  CHECK_FALSE(file_type_from_name(""));
}

}  // namespace
}  // namespace dsctl::gguf
