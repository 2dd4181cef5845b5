// LoRA adapters beside a model's weights.
#include "engine/lora.h"

#include <string>
#include <vector>

#include "engine/error.h"
#include "engine/model_worker.h"
#include "gguf/gguf_file.h"
#include "tests/support/catch.h"
#include "tests/support/engine_models.h"
#include "tests/support/paths.h"

namespace dsctl::engine {
namespace {

using tests::Changes;

const tests::Blocks kBlocks{7, 3, 12, 1, 9};
constexpr const char* kModel = "llama_untied_bias";

EngineOptions options_with(const std::filesystem::path& adapter, int tp_size = 1) {
  EngineOptions options = tests::small_options();
  options.tp_size = tp_size;
  options.adapters = {{.path = adapter.string()}};
  return options;
}

std::string load_error(const Changes& changes, const std::string& model = kModel) {
  const tests::TempDir dir;
  const auto path = dir.path() / "adapter.gguf";
  tests::copy_model(tests::golden_adapter("lora_llama").path, path, changes);
  const auto file = gguf::GgufFile::open(tests::golden_model(model).path);
  try {
    const ModelWorker worker(file, options_with(path));
    return "";
  } catch (const Error& error) {
    const std::string text = error.what();
    return text.substr(text.find("adapter.gguf"));
  }
}

template <typename T>
Changes with_key(const std::string& key, T value) {
  Changes changes;
  changes.dropped_key = key;
  changes.more = [=](gguf::GgufWriter& writer) { writer.add(key, value); };
  return changes;
}

TEST_CASE("A model under an adapter computes the logits of the merged weights") {
  const auto golden = tests::golden_adapter("lora_llama");
  const auto file = gguf::GgufFile::open(tests::golden_model(kModel).path);
  for (const CpuKernels kernels : {CpuKernels::kReference, CpuKernels::kFast}) {
    EngineOptions options = options_with(golden.path);
    options.cpu_kernels = kernels;
    ModelWorker worker(file, options);
    const auto whole = tests::run_in_chunks(worker, golden.tokens, 64, kBlocks);
    INFO(worker.limits().device);
    CHECK(tests::max_abs_error(whole, golden.logits) <= 1e-4);
    CHECK(tests::run_in_chunks(worker, golden.tokens, 7, kBlocks) == whole);
    CHECK(tests::run_in_chunks(worker, golden.tokens, 1, kBlocks) == whole);
  }
  // It is not the model without it.
  ModelWorker plain(file, tests::small_options());
  CHECK(tests::max_abs_error(tests::run_in_chunks(plain, golden.tokens, 64, kBlocks),
                             golden.logits) > 0.1);
}

TEST_CASE("Ranks cut an adapter as they cut its matrices", "[tp]") {
  const auto golden = tests::golden_adapter("lora_llama");
  const auto file = gguf::GgufFile::open(tests::golden_model(kModel).path);
  ModelWorker group(file, options_with(golden.path, 2));
  CHECK(tests::max_abs_error(tests::run_in_chunks(group, golden.tokens, 64, kBlocks),
                             golden.logits) <= 1e-4);
}

TEST_CASE("Two adapters add up") {
  const auto golden = tests::golden_adapter("lora_llama");
  const tests::TempDir dir;
  const auto opposite = dir.path() / "opposite.gguf";
  tests::copy_model(golden.path, opposite, with_key("adapter.lora.alpha", -6.0f));
  const auto file = gguf::GgufFile::open(tests::golden_model(kModel).path);
  EngineOptions options = options_with(golden.path);
  options.adapters.push_back({.path = opposite.string()});
  ModelWorker worker(file, options);
  const auto& plain = tests::golden_model(kModel);
  CHECK(tests::max_abs_error(tests::run_in_chunks(worker, plain.tokens, 64, kBlocks),
                             plain.logits) <= 1e-4);
}

TEST_CASE("A scale of the user's multiplies that of the adapter") {
  const auto golden = tests::golden_adapter("lora_llama");
  const auto file = gguf::GgufFile::open(tests::golden_model(kModel).path);
  const auto logits_with = [&](std::vector<LoraAdapter> adapters) {
    EngineOptions options = tests::small_options();
    options.adapters = std::move(adapters);
    ModelWorker worker(file, options);
    return tests::run_in_chunks(worker, golden.tokens, 64, kBlocks);
  };
  const std::string path = golden.path.string();
  // Half of it twice is all of it, none of it is the model alone.
  CHECK(tests::max_abs_error(
            logits_with({{.path = path, .scale = 0.5f}, {.path = path, .scale = 0.5f}}),
            golden.logits) <= 1e-4);
  CHECK(tests::max_abs_error(logits_with({{.path = path, .scale = 0.0f}}),
                             tests::golden_model(kModel).logits) <= 1e-4);
  CHECK(tests::max_abs_error(logits_with({{.path = path, .scale = 2.0f}}), golden.logits) > 1e-2);
}

TEST_CASE("An adapter that does not fit the model is refused with the reason") {
  CHECK(load_error({}).empty());
  CHECK_THAT(load_error({}, "qwen2"), Catch::Contains("an adapter of architecture \"llama\""));
  CHECK_THAT(load_error(with_key("adapter.type", "ia3")), Catch::Contains("not a LoRA adapter"));
  CHECK_THAT(load_error({.dropped_key = "adapter.lora.alpha"}),
             Catch::Contains("adapter.lora.alpha: expected a finite number"));
  CHECK_THAT(load_error({.dropped_tensor = "blk.1.ffn_up.weight.lora_b"}),
             Catch::Contains("blk.1.ffn_up.weight.lora_b: tensor missing"));
  CHECK_THAT(load_error({.dropped_tensor = "blk.1.ffn_up.weight.lora_a"}),
             Catch::Contains("blk.1.ffn_up.weight.lora_b: the model has no matrix"));
  CHECK_THAT(load_error({.reshaped_tensor = "blk.0.attn_q.weight.lora_a", .dims = {16, 4}}),
             Catch::Contains("shape [16, 4], expected [32, 4]"));
  CHECK_THAT(load_error({.reshaped_tensor = "blk.0.attn_q.weight.lora_b", .dims = {5, 32}}),
             Catch::Contains("shape [5, 32], expected [4, 32]"));
  Changes unknown;
  unknown.more = [](gguf::GgufWriter& writer) {
    writer.add_tensor("blk.9.attn_q.weight.lora_a", {32, 4}, std::vector<float>(128));
  };
  CHECK_THAT(load_error(unknown), Catch::Contains("blk.9.attn_q.weight.lora_a"));
}

}  // namespace
}  // namespace dsctl::engine
