#include <string>

#include "engine/error.h"
#include "engine/model_worker.h"
#include "gguf/error.h"
#include "gguf/gguf_file.h"
#include "tests/support/catch.h"
#include "tests/support/engine_models.h"
#include "tests/support/paths.h"

namespace dsctl::engine {
namespace {

using tests::Changes;

/// What loading a changed copy of a golden model says; empty when it loads.
std::string load_error(const std::string& golden, const Changes& changes) {
  const tests::TempDir dir;
  const auto path = dir.path() / "model.gguf";
  tests::copy_model(tests::golden_model(golden).path, path, changes);
  const auto file = gguf::GgufFile::open(path);
  try {
    const ModelWorker worker(file, tests::small_options());
    return "";
  } catch (const Error& error) {
    return error.what();
  } catch (const dsctl::gguf::Error& error) {
    return error.what();
  }
}

template <typename T>
Changes with_key(const std::string& key, T value) {
  Changes changes;
  changes.dropped_key = key;
  changes.more = [=](gguf::GgufWriter& writer) { writer.add(key, value); };
  return changes;
}

}  // namespace

TEST_CASE("A tensor of another shape is an error with both shapes") {
  CHECK(load_error("llama_tied", {.reshaped_tensor = "blk.1.attn_q.weight", .dims = {32, 16}}) ==
        "blk.1.attn_q.weight: shape [32, 16], expected [32, 32]");
  CHECK(load_error("llama_tied", {.reshaped_tensor = "blk.0.attn_norm.weight", .dims = {31}}) ==
        "blk.0.attn_norm.weight: shape [31], expected [32]");
  CHECK(load_error("qwen2", {.reshaped_tensor = "blk.0.attn_k.bias", .dims = {8}}) ==
        "blk.0.attn_k.bias: shape [8], expected [16]");
  CHECK(load_error("gemma3", {.reshaped_tensor = "blk.5.ffn_down.weight", .dims = {32, 24, 2}}) ==
        "blk.5.ffn_down.weight: shape [32, 24, 2], expected [32, 24]");
}

TEST_CASE("A tensor that is missing is named") {
  for (const char* name : {"token_embd.weight", "output_norm.weight", "blk.1.ffn_up.weight",
                           "blk.0.attn_q_norm.weight"})
    CHECK(load_error("qwen3", {.dropped_tensor = name}) == std::string(name) + ": tensor missing");
  CHECK(load_error("gemma3", {.dropped_tensor = "blk.3.post_ffw_norm.weight"}) ==
        "blk.3.post_ffw_norm.weight: tensor missing");
  // One of three biases alone makes no sense.
  CHECK(load_error("qwen2", {.dropped_tensor = "blk.1.attn_v.bias"}) ==
        "blk.1.attn_v.bias: tensor missing");
}

TEST_CASE("Tensors and keys that a model does not know don't matter") {
  Changes changes;
  changes.more = [](gguf::GgufWriter& writer) {
    writer.add("llama.something.new", 7u);
    writer.add_tensor("blk.0.attn_q.input_scale", {1}, std::vector<float>{2.0f});
  };
  CHECK(load_error("llama_tied", changes).empty());
}

TEST_CASE("A key that is missing is named") {
  for (const char* key :
       {"block_count", "context_length", "embedding_length", "feed_forward_length",
        "attention.head_count", "attention.layer_norm_rms_epsilon"}) {
    const std::string name = "llama." + std::string(key);
    CHECK(load_error("llama_tied", {.dropped_key = name}) ==
          name + ": key missing, the model needs it");
  }
  CHECK(load_error("gemma3", {.dropped_key = "gemma3.attention.sliding_window"}) ==
        "gemma3.attention.sliding_window: key missing, the model needs it");
}

TEST_CASE("Numbers that can't be are refused before anything is allocated") {
  const auto error_with = [](const std::string& key, auto value) {
    return load_error("llama_tied", with_key("llama." + key, value));
  };
  CHECK(error_with("block_count", 0u) == "llama.block_count: 0, expected 1 to 1024");
  CHECK(error_with("block_count", 4000000000u) ==
        "llama.block_count: 4000000000, expected 1 to 1024");
  CHECK(error_with("embedding_length", -32) ==
        "llama.embedding_length: -32, expected 1 to 1048576");
  CHECK(error_with("attention.head_count_kv", 3u) ==
        "llama.attention.head_count_kv: 3, expected a divisor of the 4 heads");
  CHECK(error_with("attention.head_count", 5u) ==
        "llama.attention.head_count_kv: 2, expected a divisor of the 5 heads");
  CHECK(error_with("rope.dimension_count", 9u) ==
        "llama.rope.dimension_count: 9, expected an even number up to the head size 8");
  CHECK(error_with("rope.freq_base", 0.5f) ==
        "llama.rope.freq_base: 0.500000, expected more than 1");
  CHECK(error_with("rope.scaling.type", std::string_view("magic")) ==
        "llama.rope.scaling.type: \"magic\" is not supported, expected none, linear, yarn or "
        "longrope");
  CHECK(error_with("attention.value_length", 16u) ==
        "llama.attention.value_length: 16 differs from the key length 8, which is not supported");
  CHECK(error_with("expert_count", 8u) ==
        "llama.expert_count: mixtures of experts are not supported for this architecture");
  CHECK(error_with("attention.layer_norm_rms_epsilon", -1.0f) ==
        "llama.attention.layer_norm_rms_epsilon: negative");
  CHECK_FALSE(error_with("block_count", std::string_view("two")).empty());
}

TEST_CASE("A key with one value for each layer is read when they are all the same") {
  const auto with_heads = [](std::vector<uint32_t> heads) {
    Changes changes;
    changes.dropped_key = "llama.attention.head_count_kv";
    changes.more = [=](gguf::GgufWriter& writer) {
      writer.add_array("llama.attention.head_count_kv", heads);
    };
    return load_error("llama_tied", changes);
  };
  CHECK(with_heads({2, 2}).empty());
  CHECK_THAT(with_heads({2, 1}), Catch::Contains("head_count_kv: differs between layers"));
  CHECK_THAT(with_heads({}), Catch::Contains("head_count_kv: an empty array"));
}

TEST_CASE("An architecture that is not supported is named beside those that are") {
  CHECK(load_error("llama_tied", with_key("general.architecture", std::string_view("mamba"))) ==
        "architecture \"mamba\" is not supported, expected one of llama, qwen2, qwen3, gemma3, "
        "gemma2, phi3, qwen3moe, deepseek2");
}

TEST_CASE("Numbers of latent attention and of experts that can't be are refused") {
  const auto error_with = [](const std::string& key, auto value) {
    return load_error("deepseek_v3", with_key("deepseek2." + key, value));
  };
  CHECK(load_error("deepseek_v3", {.dropped_key = "deepseek2.attention.kv_lora_rank"}) ==
        "deepseek2.attention.kv_lora_rank: key missing, the model needs it");
  CHECK(error_with("rope.dimension_count", 24u) ==
        "deepseek2.rope.dimension_count: 24, expected less than the key length 24");
  CHECK(error_with("expert_used_count", 9u) == "deepseek2.expert_used_count: 9, expected 1 to 8");
  CHECK(error_with("expert_group_count", 3u) ==
        "deepseek2.expert_group_count: 3, expected a divisor of the 8 experts");
  CHECK(error_with("expert_group_used_count", 1u) ==
        "deepseek2.expert_group_used_count: 1 groups have 2 experts, but 3 are used");
  CHECK(error_with("expert_group_used_count", 5u) ==
        "deepseek2.expert_group_used_count: 5, expected 1 to 4");
  CHECK(error_with("expert_gating_func", 3u) ==
        "deepseek2.expert_gating_func: 3 is not supported, expected 1 (softmax) or 2 (sigmoid)");
  CHECK(error_with("leading_dense_block_count", -1) ==
        "deepseek2.leading_dense_block_count: -1, expected 0 to 1024");
  CHECK(error_with("nextn_predict_layers", 3u) ==
        "deepseek2.nextn_predict_layers: 3, expected 0 to 2");
  CHECK_THAT(error_with("attention.temperature_scale", 0.1f), Catch::Contains("not supported"));
  CHECK(error_with("expert_count", 7u) ==
        "deepseek2.expert_group_count: 4, expected a divisor of the 7 experts");
}

TEST_CASE("Stacks of experts and of heads that have another shape are refused") {
  CHECK(load_error("deepseek_v3",
                   {.reshaped_tensor = "blk.1.ffn_up_exps.weight", .dims = {32, 20, 7}}) ==
        "blk.1.ffn_up_exps.weight: shape [32, 20, 7], expected [32, 20, 8]");
  CHECK(
      load_error("deepseek_v3", {.reshaped_tensor = "blk.0.attn_k_b.weight", .dims = {24, 8, 4}}) ==
      "blk.0.attn_k_b.weight: shape [24, 8, 4], expected [8, 24, 4]");
  CHECK(load_error("deepseek_v3_old",
                   {.reshaped_tensor = "blk.0.attn_kv_b.weight", .dims = {24, 79}}) ==
        "blk.0.attn_kv_b.weight: shape [24, 79], expected [24, 20, 4]");
  CHECK(load_error("qwen3moe", {.dropped_tensor = "blk.1.ffn_down_exps.weight"}) ==
        "blk.1.ffn_down_exps.weight: tensor missing");
  CHECK(load_error("phi3", {.reshaped_tensor = "blk.0.ffn_up.weight", .dims = {32, 48}}) ==
        "blk.0.ffn_up.weight: shape [32, 48], expected [32, 96]");
}

TEST_CASE("Layers that predict further tokens are not run") {
  // With two of its three layers the model is another one, but it loads and needs no tensor of the
  // third.
  Changes changes = with_key("deepseek2.nextn_predict_layers", 1u);
  changes.dropped_tensor = "blk.2.attn_output.weight";
  CHECK(load_error("deepseek_v3", changes).empty());
}

TEST_CASE("Files without keys for groups are routed as their model was trained") {
  const auto groups = [](int n_experts, bool sigmoid, bool with_keys) {
    const tests::TempDir dir;
    const auto path = dir.path() / "model.gguf";
    gguf::GgufWriter writer;
    writer.add("general.architecture", "deepseek2");
    const auto add = [&](const char* key, uint32_t value) {
      writer.add("deepseek2." + std::string(key), value);
    };
    for (const auto& [key, value] : std::initializer_list<std::pair<const char*, uint32_t>>{
             {"block_count", 2},
             {"embedding_length", 32},
             {"attention.head_count", 4},
             {"context_length", 64},
             {"attention.kv_lora_rank", 32},
             {"rope.dimension_count", 8},
             {"attention.key_length", 16},
             {"attention.value_length", 16},
             {"expert_used_count", 6},
             {"expert_feed_forward_length", 32}})
      add(key, value);
    writer.add("deepseek2.attention.layer_norm_rms_epsilon", 1e-6f);
    add("expert_count", static_cast<uint32_t>(n_experts));
    add("expert_gating_func", sigmoid ? 2 : 1);
    if (with_keys) add("expert_group_count", 1);
    writer.add_tensor("token_embd.weight", {32, 4}, std::vector<float>(128));
    writer.write(path);
    const auto file = gguf::GgufFile::open(path);
    const Routing routing = read_deepseek2_config(ConfigReader(file)).moe.routing;
    return std::pair(routing.n_groups, routing.n_used_groups);
  };
  CHECK(groups(256, true, false) == std::pair(8, 4));   // V3, R1
  CHECK(groups(160, false, false) == std::pair(8, 3));  // V2
  CHECK(groups(64, false, false) == std::pair(1, 1));   // V2-Lite
  CHECK(groups(384, true, false) == std::pair(1, 1));   // Kimi-K2
  CHECK(groups(256, true, true) == std::pair(1, 1));    // the file says so
}

TEST_CASE("Longrope takes its factors by the length that is asked for") {
  const auto& golden = tests::golden_model("llama_tied");
  const tests::TempDir dir;
  const auto path = dir.path() / "model.gguf";
  Changes changes;
  changes.more = [](gguf::GgufWriter& writer) {
    writer.add("llama.rope.scaling.type", "longrope");
    writer.add("llama.rope.scaling.original_context_length", 48u);
    writer.add_tensor("rope_factors_short.weight", {4}, std::vector<float>(4, 1.0f));
    writer.add_tensor("rope_factors_long.weight", {4}, std::vector<float>{1, 2, 3, 4});
  };
  tests::copy_model(golden.path, path, changes);
  const auto file = gguf::GgufFile::open(path);
  auto options = tests::small_options();
  options.max_model_len = 48;
  ModelWorker short_worker(file, options);
  options.max_model_len = 49;
  ModelWorker long_worker(file, options);
  const tests::Blocks blocks{0, 1, 2, 3, 4};
  const auto of_short = tests::run_in_chunks(short_worker, golden.tokens, 64, blocks);
  CHECK(tests::max_abs_error(of_short, golden.logits) <= 1e-4);
  const auto of_long = tests::run_in_chunks(long_worker, golden.tokens, 64, blocks);
  CHECK(tests::max_abs_error(of_long, golden.logits) > 1e-2);

  changes.more = [](gguf::GgufWriter& writer) {
    writer.add("llama.rope.scaling.type", "longrope");
  };
  CHECK(load_error("llama_tied", changes) ==
        "rope_factors_short.weight: tensor missing, longrope scaling needs it");
}

TEST_CASE("Gemma reads which layers are local from a period or from flags") {
  const auto pattern = [](auto add) {
    const tests::TempDir dir;
    const auto path = dir.path() / "model.gguf";
    Changes changes;
    changes.more = add;
    tests::copy_model(tests::golden_model("gemma3").path, path, changes);
    const auto file = gguf::GgufFile::open(path);
    return read_gemma3_config(ConfigReader(file)).local_layers;
  };
  const std::string key = "gemma3.attention.sliding_window_pattern";
  using Flags = std::vector<bool>;
  CHECK(pattern([](gguf::GgufWriter&) {}) == Flags{true, true, true, true, true, false});
  CHECK(pattern([&](gguf::GgufWriter& writer) { writer.add(key, 2u); }) ==
        Flags{true, false, true, false, true, false});
  const Flags flags{false, true, true, false, true, true};
  CHECK(pattern([&](gguf::GgufWriter& writer) { writer.add_bools(key, flags); }) == flags);
  CHECK_THROWS_WITH(pattern([&](gguf::GgufWriter& writer) { writer.add_bools(key, {true}); }),
                    Catch::Contains("a flag for each of the 6 layers"));
}

}  // namespace dsctl::engine
