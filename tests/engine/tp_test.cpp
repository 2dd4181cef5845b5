#include <string>
#include <vector>

#include "engine/error.h"
#include "engine/model_worker.h"
#include "engine/shard.h"
#include "gguf/gguf_file.h"
#include "tests/support/catch.h"
#include "tests/support/engine_models.h"
#include "tests/support/paths.h"

namespace dsctl::engine {
namespace {

using tests::Blocks;
using tests::golden_models;
using tests::GoldenModel;
using tests::RandomModel;

const Blocks kBlocks{7, 3, 12, 1, 9};

EngineOptions options_with(int tp_size) {
  EngineOptions options = tests::small_options();
  options.tp_size = tp_size;
  return options;
}

/// Checks that `tp_size` ranks compute what one does: ranks only add up in another order.
void check_ranks(const std::filesystem::path& path, int tp_size) {
  const auto& tokens = golden_models()[0].tokens;
  const auto file = gguf::GgufFile::open(path);
  ModelWorker single(file, options_with(1));
  ModelWorker group(file, options_with(tp_size));
  const auto one = tests::run_in_chunks(single, tokens, 64, kBlocks);
  const auto several = tests::run_in_chunks(group, tokens, 64, kBlocks);
  INFO(path << ", " << group.limits().device);
  CHECK(tests::nmse(several, one) <= 1e-10);
  CHECK(tests::argmax_rows(several, single.limits().vocab_size) ==
        tests::argmax_rows(one, single.limits().vocab_size));
  CHECK(tests::run_in_chunks(group, tokens, 7, kBlocks) == several);
}

}  // namespace

TEST_CASE("Shard splits units evenly, the first ranks taking what is left over") {
  const auto bounds = [](int size, int64_t n) {
    std::vector<int64_t> result;
    for (int rank = 0; rank < size; ++rank)
      result.push_back(Shard{rank, size}.split(n, "heads").begin);
    result.push_back(Shard{size - 1, size}.split(n, "heads").end);
    return result;
  };
  CHECK(bounds(1, 3) == std::vector<int64_t>{0, 3});
  CHECK(bounds(2, 3) == std::vector<int64_t>{0, 2, 3});
  CHECK(bounds(4, 6) == std::vector<int64_t>{0, 2, 4, 5, 6});
  // 10 blocks of 32 and one of 16 over three ranks: 4, 4 and 3 blocks.
  const Range last = Shard{2, 3}.split_blocks(336, 32, "blocks");
  CHECK(last.begin == 256);
  CHECK(last.end == 336);
  CHECK(widen({48, 96}, 32).begin == 32);
  CHECK(widen({48, 96}, 32).end == 96);
}

TEST_CASE("Two ranks compute what one computes, for every architecture", "[tp]") {
  for (const GoldenModel& golden : golden_models())
    check_ranks(golden.path, 2);
}

TEST_CASE("Ranks share a latent's heads and the experts' columns unevenly", "[tp]") {
  // Four heads over three ranks; values of 12 columns, experts of 20 and 40.
  for (const char* name : {"deepseek_v3", "deepseek_v3_old", "deepseek_v2_lite"})
    check_ranks(tests::golden_model(name).path, 3);
  const tests::TempDir dir;
  const auto path = dir.path() / "model.gguf";
  // Five heads of 24 that end inside blocks of attn_output; experts of five blocks of 32, of which
  // each rank takes its columns, and a shared one of ten.
  RandomModel model{.n_heads = 8,
                    .head_dim = 24,
                    .dtype = gguf::DType::Q8_0,
                    .n_experts = 6,
                    .expert_dim = 160,
                    .latent_dim = 32,
                    .rope_dim = 8};
  tests::write_model(path, model);
  check_ranks(path, 2);
  check_ranks(path, 3);
}

TEST_CASE("Ranks take whole experts where an expert has fewer blocks than ranks", "[tp]") {
  const tests::TempDir dir;
  const auto path = dir.path() / "model.gguf";
  // One block of 32 an expert, seven experts: three, two and two of them.
  tests::write_model(
      path, {.n_kv_heads = 4, .dtype = gguf::DType::Q8_0, .n_experts = 7, .expert_dim = 32});
  check_ranks(path, 2);
  check_ranks(path, 3);
  tests::write_model(
      path, {.n_kv_heads = 4, .dtype = gguf::DType::Q8_0, .n_experts = 3, .expert_dim = 32});
  const auto file = gguf::GgufFile::open(path);
  CHECK_THROWS_WITH(ModelWorker(file, options_with(4)), Catch::Contains("only 3 experts"));
}

TEST_CASE("Every rank counts its own copy of a latent cache", "[tp]") {
  const auto kv_bytes = [](const char* name, int tp_size) {
    const auto file = gguf::GgufFile::open(tests::golden_model(name).path);
    return ModelWorker(file, options_with(tp_size)).limits().kv_bytes;
  };
  // 3 layers, 64 blocks of 8 tokens, 24 + 16 values of 4 bytes.
  CHECK(kv_bytes("deepseek_v3", 1) == 3 * 64 * 8 * 40 * 4);
  CHECK(kv_bytes("deepseek_v3", 2) == 2 * kv_bytes("deepseek_v3", 1));
  CHECK(kv_bytes("qwen3moe", 2) == kv_bytes("qwen3moe", 1));
}

TEST_CASE("Ranks share heads, blocks and tokens unevenly where they don't divide", "[tp]") {
  const tests::TempDir dir;
  const auto path = dir.path() / "model.gguf";
  // Three KV heads, three blocks of ffn, 61 tokens over two ranks.
  tests::write_model(path, {.n_heads = 9, .n_kv_heads = 3, .head_dim = 32});
  check_ranks(path, 2);
  check_ranks(path, 3);
}

TEST_CASE("Ranks may meet inside a quantisation block of attn_output", "[tp]") {
  const tests::TempDir dir;
  const auto path = dir.path() / "model.gguf";
  // Heads of 24: the ranks' columns meet at 48, inside the block [32, 64).
  tests::write_model(path, {.n_kv_heads = 4, .head_dim = 24, .dtype = gguf::DType::Q8_0});
  check_ranks(path, 2);
  // Heads of 64 in blocks of 256: four ranks share one block.
  tests::write_model(
      path,
      {.dim = 256, .ffn_dim = 1024, .n_kv_heads = 4, .head_dim = 64, .dtype = gguf::DType::Q6_K});
  check_ranks(path, 4);
}

TEST_CASE("More ranks than KV heads, or than blocks, is an error that says so", "[tp]") {
  const tests::TempDir dir;
  const auto path = dir.path() / "model.gguf";
  tests::write_model(path, {.n_kv_heads = 2});
  auto file = gguf::GgufFile::open(path);
  CHECK_THROWS_WITH(ModelWorker(file, options_with(4)),
                    "tensor parallelism over 4 ranks: the model has only 2 key/value heads, give "
                    "at most as many ranks");
  tests::write_model(path, {.ffn_dim = 32, .dtype = gguf::DType::Q8_0});
  file = gguf::GgufFile::open(path);
  CHECK_THROWS_WITH(ModelWorker(file, options_with(2)),
                    Catch::Contains("only 1 blocks in a row of ffn_down"));
}

TEST_CASE("A rank's failure is thrown on and the ranks go on afterwards", "[tp]") {
  ThreadGroup group(3);
  RankThreads threads(group);
  for (int failing = 0; failing < 3; ++failing) {
    CHECK_THROWS_WITH(threads.run([&](int rank) {
      if (rank == failing) throw Error("rank " + std::to_string(rank) + " is lost");
      group.rank(rank).barrier();
    }),
                      "rank " + std::to_string(failing) + " is lost");
    std::vector<float> sums(3, 0.0f);
    threads.run([&](int rank) {
      auto& sum = sums[static_cast<size_t>(rank)];
      sum = static_cast<float>(rank + 1);
      group.rank(rank).all_reduce({&sum, 1});
    });
    CHECK(sums == std::vector<float>(3, 6.0f));
  }
}

}  // namespace dsctl::engine
