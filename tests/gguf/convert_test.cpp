#include "gguf/convert/convert.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "gguf/error.h"
#include "gguf/gguf_file.h"
#include "gguf/quantize.h"
#include "gguf/quants/all.h"
#include "tests/support/catch.h"
#include "tests/support/gguf_safetensors.h"
#include "tests/support/paths.h"

namespace dsctl::gguf::convert {
namespace {

using Catch::Matchers::Contains;
using tests::TinyLlama;

std::vector<float> values_of(const GgufFile& file, std::string_view name) {
  const TensorInfo* tensor = file.find_tensor(name);
  REQUIRE(tensor != nullptr);
  std::vector<float> values(static_cast<size_t>(tensor->n_elems()));
  dequantize_row(tensor->dtype, tensor->data, values.data(), tensor->n_elems());
  return values;
}

ConvertOptions out_type(OutType type) {
  ConvertOptions options;
  options.out_type = type;
  return options;
}

/// Writes `model` to a directory, converts it there and opens the result.
GgufFile convert(const TinyLlama& model, const tests::TempDir& dir,
                 const ConvertOptions& options = {}) {
  model.write(dir.path() / "tiny-model");
  const auto path = dir.path() / "out.gguf";
  Conversion::plan(dir.path() / "tiny-model", options).write(path, nullptr);
  return GgufFile::open(path);
}

TEST_CASE("convert writes a llama with its metadata, tokenizer and tensors") {
  const tests::TempDir dir;
  const GgufFile file = convert({}, dir);
  CHECK(file.architecture() == "llama");
  CHECK(file.get_string("general.name") == "Tiny Model");
  CHECK(file.get_uint("general.file_type") == 32);
  CHECK(file.get_uint("llama.block_count") == 1);
  CHECK(file.get_uint("llama.attention.head_count_kv") == 2);
  CHECK(file.get_uint("llama.rope.dimension_count") == 8);
  CHECK(file.get_string("tokenizer.ggml.pre") == "llama-bpe");
  CHECK(file.get_uint("tokenizer.ggml.bos_token_id") == 286);
  CHECK(file.find_bool("tokenizer.ggml.add_bos_token") == true);
  CHECK(file.get_string("tokenizer.chat_template") == "{{ messages }}");
  CHECK(file.find_array("tokenizer.ggml.tokens")->size() == 288);
  CHECK(file.tensors().size() == 12);
  CHECK(file.find_tensor("blk.0.attn_norm.weight")->dtype == DType::F32);
  const TensorInfo* down = file.find_tensor("blk.0.ffn_down.weight");
  CHECK(down->dtype == DType::BF16);
  CHECK(down->dims == std::array<int64_t, 4>{64, 32, 1, 1});
  CHECK(values_of(file, "blk.0.ffn_down.weight") == tests::ramp(32 * 64, 12));
  // Rows of q: halves of a head become neighbours.
  const std::vector<float> q = values_of(file, "blk.0.attn_q.weight");
  const std::vector<float> q_proj = tests::ramp(32 * 32, 6);
  CHECK(std::equal(q.begin() + 32, q.begin() + 64, q_proj.begin() + 4 * 32));
}

TEST_CASE("convert gives the same bytes with any number of threads") {
  const tests::TempDir dir;
  TinyLlama().write(dir.path() / "m");
  for (const int n_threads : {1, 2, 5}) {
    const auto path = dir.path() / ("out" + std::to_string(n_threads));
    ConvertOptions options;
    options.n_threads = n_threads;
    Conversion::plan(dir.path() / "m", options).write(path, nullptr);
    CHECK(tests::read_file(path) == tests::read_file(dir.path() / "out1"));
  }
}

TEST_CASE("convert takes the type that was asked for") {
  const tests::TempDir dir;
  const std::vector<float> exact = tests::ramp(32 * 64, 12);
  for (const auto& [type, dtype] :
       {std::pair(OutType::kF32, DType::F32), std::pair(OutType::kF16, DType::F16),
        std::pair(OutType::kBF16, DType::BF16), std::pair(OutType::kQ8_0, DType::Q8_0)}) {
    const GgufFile file = convert({}, dir, out_type(type));
    CHECK(file.find_tensor("blk.0.ffn_down.weight")->dtype == dtype);
    CHECK(file.find_tensor("output_norm.weight")->dtype == DType::F32);
    const std::vector<float> values = values_of(file, "blk.0.ffn_down.weight");
    if (dtype != DType::Q8_0) {
      CHECK(values == exact);
      continue;
    }
    for (size_t i = 0; i < exact.size(); ++i)
      REQUIRE(std::abs(values[i] - exact[i]) < 0.01F);
  }
}

TEST_CASE("convert --quantize writes what convert and quantize would") {
  const tests::TempDir dir;
  TinyLlama().write(dir.path() / "m");
  Conversion::plan(dir.path() / "m", {}).write(dir.path() / "plain", nullptr);
  for (const char* name : {"Q8_0", "Q4_0", "Q4_K_M"}) {
    ConvertOptions options;
    options.quantize = file_type_from_name(name);
    Conversion::plan(dir.path() / "m", options).write(dir.path() / "at-once", nullptr);
    QuantizeOptions quantize_options;
    quantize_options.file_type = *options.quantize;
    const GgufFile plain = GgufFile::open(dir.path() / "plain");
    quantize(plain, plan_quantize(plain, quantize_options), dir.path() / "two-steps", {});
    CHECK(tests::read_file(dir.path() / "at-once") == tests::read_file(dir.path() / "two-steps"));
  }
}

TEST_CASE("convert scales rope as Llama 3.1 does") {
  const tests::TempDir dir;
  TinyLlama model;
  model.config_more = R"(, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
    "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64})";
  const GgufFile file = convert(model, dir);
  const std::vector<float> factors = values_of(file, "rope_freqs.weight");
  REQUIRE(factors.size() == 4);
  CHECK(factors[0] == 1.0F);  // wavelength 6.3
  CHECK(factors[1] > 1.0F);   // 63: between
  CHECK(factors[1] < 8.0F);
  CHECK(factors[3] == 8.0F);
}

TEST_CASE("convert writes YaRN's keys and refuses a rope it does not know") {
  const tests::TempDir dir;
  TinyLlama model;
  model.config_more = R"(, "rope_scaling": {"type": "yarn", "factor": 4.0,
                           "original_max_position_embeddings": 16, "beta_fast": 32})";
  const GgufFile file = convert(model, dir);
  CHECK(file.get_string("llama.rope.scaling.type") == "yarn");
  CHECK(file.get_float("llama.rope.scaling.factor") == 4.0);
  CHECK(file.get_uint("llama.rope.scaling.original_context_length") == 16);
  CHECK(file.get_float("llama.rope.scaling.yarn_beta_fast") == 32.0);
  model.config_more = R"(, "rope_scaling": {"type": "spiral", "factor": 4.0})";
  CHECK_THROWS_WITH(convert(model, dir), Contains("spiral"));
}

TEST_CASE("convert names what is wrong with a checkpoint, and leaves no file") {
  const tests::TempDir dir;
  const auto model_dir = dir.path() / "m";
  const auto plan_error = [&](const std::function<void()>& damage) {
    std::filesystem::remove_all(model_dir);
    TinyLlama().write(model_dir);
    damage();
    try {
      Conversion::plan(model_dir, {}).write(dir.path() / "out.gguf", nullptr);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  const auto write = [&](const char* name, const std::string& text) {
    tests::write_file(model_dir / name, text);
  };
  const auto with_tensor = [&](tests::RawTensor tensor) {
    auto tensors = TinyLlama().tensors();
    tensors.push_back(std::move(tensor));
    write("model.safetensors", tests::safetensors_bytes(tensors));
  };
  const auto has = [](const std::string& text) { return Contains(text); };
  CHECK_THAT(plan_error([&] { std::filesystem::remove(model_dir / "config.json"); }),
             has("has no config.json"));
  CHECK_THAT(plan_error([&] {
               std::filesystem::remove_all(model_dir);
               tests::write_file(model_dir, "a file");
             }),
             has("is no directory"));
  CHECK_THAT(plan_error([&] { write("config.json", "{}"); }), has("architectures"));
  CHECK_THAT(plan_error([&] { write("config.json", R"({"architectures": ["BertModel"]})"); }),
             has("BertModel") && has("LlamaForCausalLM"));
  CHECK_THAT(
      plan_error([&] { write("config.json", R"({"architectures": ["LlamaForCausalLM"]})"); }),
      has("num_attention_heads: missing"));
  CHECK_THAT(plan_error([&] {
               TinyLlama broken;
               broken.config_more = R"(, "num_hidden_layers": "two")";
               write("config.json", broken.config_json());
             }),
             has("num_hidden_layers") && has("whole number"));
  CHECK_THAT(
      plan_error([&] { with_tensor(tests::f32_tensor("model.layers.0.odd.weight", {1}, {1})); }),
      has("model.layers.0.odd.weight"));
  CHECK_THAT(plan_error([&] { with_tensor(tests::i32_tensor("lm_head.bias", {1}, {1})); }),
             has("lm_head.bias") && has("I32"));
  CHECK_THAT(plan_error([&] { std::filesystem::remove(model_dir / "tokenizer.json"); }),
             has("has no tokenizer.model, tokenizer.json"));
  CHECK_THAT(plan_error([&] {
               TinyLlama more;
               more.config_more = R"(, "quantization_config": {"quant_method": "quip"})";
               write("config.json", more.config_json());
             }),
             has("quip"));
  CHECK_FALSE(std::filesystem::exists(dir.path() / "out.gguf"));
  CHECK(plan_error([] {}) == "no error");
}

TEST_CASE("convert stops where its progress throws and leaves nothing behind") {
  const tests::TempDir dir;
  TinyLlama().write(dir.path() / "m");
  const Conversion conversion = Conversion::plan(dir.path() / "m", {});
  const auto stop = [](int64_t, int64_t) { throw Error("interrupted"); };
  CHECK_THROWS_WITH(conversion.write(dir.path() / "out.gguf", stop), Contains("interrupted"));
  int n_files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(dir.path()))
    ++n_files;
  CHECK(n_files == 1);  // the checkpoint
}

// An f16 of 11 odd bits: no multiple by a zero point is one, but by powers of two.
constexpr float kOddScale = 0x1.81cp-7F;

/// A tiny llama whose down_proj is AWQ with groups of 32 and these zero points.
TinyLlama awq_model(const tests::TempDir& dir, uint32_t zeros, float scale) {
  TinyLlama model;
  model.config_more = R"(, "quantization_config": {"quant_method": "awq", "bits": 4,
                           "group_size": 32, "version": "gemm", "zero_point": true})";
  const auto model_dir = dir.path() / "awq";
  model.write(model_dir);
  auto tensors = model.tensors();
  std::erase_if(tensors, [](const tests::RawTensor& tensor) {
    return tensor.name == "model.layers.0.mlp.down_proj.weight";
  });
  std::vector<uint32_t> words(64 * 4);
  for (size_t i = 0; i < words.size(); ++i)
    words[i] = static_cast<uint32_t>(i) * 0x9e3779b9U;
  const std::string base = "model.layers.0.mlp.down_proj.";
  tensors.push_back(tests::i32_tensor(base + "qweight", {64, 4}, words));
  tensors.push_back(tests::i32_tensor(base + "qzeros", {2, 4}, std::vector<uint32_t>(8, zeros)));
  tensors.push_back(tests::f16_tensor(base + "scales", {2, 32}, std::vector<float>(64, scale)));
  tests::write_file(model_dir / "model.safetensors", tests::safetensors_bytes(tensors));
  return model;
}

TEST_CASE("AWQ checkpoints keep their codes in the smallest type that is exact") {
  const tests::TempDir dir;
  struct Case {
    uint32_t zeros;
    float scale;
    DType dtype;
  };
  for (const Case& one :
       {Case{0x88888888U, kOddScale, DType::Q4_0}, Case{0x7a7a7a7aU, 0.0078125F, DType::Q4_1},
        Case{0x7a7a7a7aU, kOddScale, DType::Q5_0}}) {
    awq_model(dir, one.zeros, one.scale);
    const auto out = dir.path() / "out.gguf";
    Conversion::plan(dir.path() / "awq", {}).write(out, nullptr);
    const GgufFile file = GgufFile::open(out);
    const std::vector<float> codes = values_of(file, "blk.0.ffn_down.weight");
    CHECK(file.find_tensor("blk.0.ffn_down.weight")->dtype == one.dtype);
    Conversion::plan(dir.path() / "awq", out_type(OutType::kF32)).write(out, nullptr);
    CHECK(values_of(GgufFile::open(out), "blk.0.ffn_down.weight") == codes);
  }
}

TEST_CASE("AWQ that Q4_1 can't hold is refused by name unless the nearest will do") {
  const tests::TempDir dir;
  awq_model(dir, 0x7a7a7a7aU, kOddScale);
  ConvertOptions options;
  options.quantize = file_type_from_name("Q4_1");
  CHECK_THROWS_WITH(Conversion::plan(dir.path() / "awq", options),
                    Contains("model.layers.0.mlp.down_proj.weight") && Contains("Q5_0 can") &&
                        Contains("--inexact"));
  options.rounding = Rounding::kNearest;
  const auto out = dir.path() / "out.gguf";
  Conversion::plan(dir.path() / "awq", options).write(out, nullptr);
  CHECK(GgufFile::open(out).find_tensor("blk.0.ffn_down.weight")->dtype == DType::Q4_1);
}

}  // namespace
}  // namespace dsctl::gguf::convert
