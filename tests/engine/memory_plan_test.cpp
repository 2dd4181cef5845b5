// Expected numbers come from independent arithmetic: dims and types of the models, worked by hand
// or by a few lines of Python, and sizes that the models' publishers give.
#include "engine/memory_plan.h"

#include "engine/comm/thread_comm.h"
#include "engine/cpu/cpu_ops.h"
#include "engine/cpu/kernels.h"
#include "engine/error.h"
#include "engine/models/models.h"
#include "engine/weights.h"
#include "tests/support/catch.h"
#include "tests/support/engine_models.h"
#include "tests/support/model_headers.h"
#include "tests/support/paths.h"

namespace dsctl::engine {
namespace {

using Catch::Contains;
using tests::dense_header;
using tests::open_header;
using tests::r1_header;

ModelFootprint measure(const gguf::GgufWriter& header) {
  return measure_model(open_header(header));
}

TEST_CASE("The tensors of DeepSeek-R1 Q4_K_M come to the size that is published") {
  const ModelFootprint model = measure(r1_header());
  CHECK(model.total.n_tensors == 1025);
  CHECK(model.total.size_bytes == 404'424'884'224);  // 404 GB, 376.65 GiB
  CHECK(model.total.n_parameters == 671'026'419'200);
  CHECK(model.total.read_parameters == 36'625'618'432);
  CHECK(model.total.read_bytes == 22'232'055'808);
  CHECK(model.bits_per_weight() == Approx(4.8216).epsilon(1e-4));
  CHECK(model.n_layers == 61);
  CHECK(model.n_experts == 256);
  CHECK(model.n_used_experts == 8);
  CHECK(model.of(WeightKind::kEmbedding).size_bytes == 521'256'960);
  CHECK(model.of(WeightKind::kEmbedding).read_bytes == 0);
  CHECK(model.of(WeightKind::kHead).size_bytes == 760'166'400);
  CHECK(model.of(WeightKind::kAttention).size_bytes == 6'420'049'920);
  CHECK(model.of(WeightKind::kDenseFfn).size_bytes == 771'047'424);
  CHECK(model.of(WeightKind::kRouter).size_bytes == 425'781'248);
  CHECK(model.of(WeightKind::kRoutedExperts).size_bytes == 393'983'557'632);
  CHECK(model.of(WeightKind::kRoutedExperts).read_bytes == 393'983'557'632 / 32);
  CHECK(model.of(WeightKind::kSharedExperts).size_bytes == 1'538'998'272);
  CHECK(model.of(WeightKind::kOther).n_tensors == 245);
  int64_t in_layers = 0;
  for (const WeightTotal& layer : model.layers)
    in_layers += layer.size_bytes;
  CHECK(in_layers + 521'256'960 + 760'166'400 + 4 * 7168 == model.total.size_bytes);
  REQUIRE(model.types.size() == 3);
  CHECK(model.types[0].dtype == gguf::DType::Q4_K);
  CHECK(model.types[0].n_tensors == 606);
  CHECK(model.types[1].n_tensors == 58);   // Q6_K
  CHECK(model.types[2].n_tensors == 361);  // F32
}

TEST_CASE("Dense models have the size and the bytes a token that are known of them") {
  struct Known {
    tests::DenseModel model;
    int64_t size_bytes;
    double read_gb;
  };
  for (const Known& known : {Known{tests::kLlama3_8b, 4'912'898'048, 4.617},
                             Known{tests::kLlama3_70b, 42'470'588'416, 41.88},
                             Known{tests::kQwen2_7b, 4'677'120'000, 4.370},
                             Known{tests::kQwen2_14b, 8'982'142'976, 8.543},
                             Known{tests::kQwen2_32b, 19'845'357'568, 19.41}}) {
    const ModelFootprint model = measure(dense_header(known.model));
    INFO(known.model.architecture << " " << known.model.dim);
    CHECK(model.total.size_bytes == known.size_bytes);
    CHECK(static_cast<double>(model.total.read_bytes) / 1e9 == Approx(known.read_gb).epsilon(2e-4));
  }
  const ModelFootprint tied = measure(dense_header(tests::kQwen2_1b));
  CHECK(tied.is_tied);
  CHECK(tied.total.read_bytes == tied.total.size_bytes);  // the table is the head
}

TEST_CASE("A token's KV cache is what the heads, the latent or the window leave of it") {
  SECTION("Llama-3-8B: 32 layers of 8 heads of 128 + 128 values: 128 KiB in f16") {
    const KvFootprint kv = measure(dense_header(tests::kLlama3_8b)).kv;
    CHECK(kv.values(1) == 65'536);
    CHECK(kv_bytes(KvType::kF16, kv.values(1)) == 131'072);
    CHECK(kv_bytes(KvType::kF32, kv.values(1)) == 262'144);
    CHECK(kv_bytes(KvType::kFp8, kv.values(1)) == 65'536);
    CHECK(kv_bytes(KvType::kQ8_0, kv.values(1)) == 69'632);
    CHECK(kv_bytes(KvType::kF16, kv.values(8192)) == int64_t{1} << 30);
    CHECK(kv.windowed_values(8192) == kv.values(8192));
  }
  SECTION("Qwen2.5: 56 KiB for 7B, 192 KiB for 14B, 256 KiB for 32B") {
    CHECK(kv_bytes(KvType::kF16, measure(dense_header(tests::kQwen2_7b)).kv.values(1)) == 57'344);
    CHECK(kv_bytes(KvType::kF16, measure(dense_header(tests::kQwen2_14b)).kv.values(1)) == 196'608);
    CHECK(kv_bytes(KvType::kF16, measure(dense_header(tests::kQwen2_32b)).kv.values(1)) == 262'144);
  }
  SECTION("Gemma3-1B: of 26 layers all but 5, 11, 17 and 23 see 512 tokens") {
    const KvFootprint kv = measure(dense_header(tests::kGemma3_1b)).kv;
    CHECK(kv.n_layers == 26);
    CHECK(kv.n_window_layers == 22);
    CHECK(kv.window == 512);
    CHECK(kv.full_values == 4 * 512);
    CHECK(kv.window_values == 22 * 512);
    CHECK(kv.values(8192) == 26 * 512 * 8192);
    CHECK(kv.windowed_values(8192) == 4 * 512 * 8192 + 22 * 512 * 512);
    CHECK(kv.windowed_values(100) == kv.values(100));
  }
  SECTION("DeepSeek-R1: 61 rows of 512 + 64 values, not 128 heads of 192 + 128") {
    const KvFootprint kv = measure(r1_header()).kv;
    CHECK(kv.latent_dim == 576);
    CHECK(kv_bytes(KvType::kF16, kv.values(1)) == 70'272);
    CHECK(kv_bytes(KvType::kF16, kv.expanded_values) == 4'997'120);
    CHECK(kv_bytes(KvType::kF16, kv.values(163'840)) == 11'513'364'480);
  }
}

TEST_CASE(
    "A latent cache is the same in files that give the latent sizes as key and value length") {
  gguf::GgufWriter writer;
  writer.add("general.architecture", "deepseek2");
  for (const auto& [key, value] :
       std::vector<std::pair<const char*, uint32_t>>{{"block_count", 2},
                                                     {"embedding_length", 7168},
                                                     {"nextn_predict_layers", 1},
                                                     {"attention.head_count", 128},
                                                     {"attention.head_count_kv", 1},
                                                     {"attention.kv_lora_rank", 512},
                                                     {"attention.key_length", 576},
                                                     {"attention.value_length", 512},
                                                     {"attention.key_length_mla", 192},
                                                     {"attention.value_length_mla", 128},
                                                     {"rope.dimension_count", 64}})
    writer.add(std::string("deepseek2.") + key, value);
  for (const char* name :
       {"blk.0.attn_kv_a_mqa.weight", "blk.1.attn_kv_a_mqa.weight", "blk.1.nextn.eh_proj.weight"})
    writer.declare_tensor(name, gguf::DType::F16, {7168, 576});
  const ModelFootprint model = measure(writer);
  CHECK(model.n_layers == 1);
  CHECK(model.kv.values(1) == 576);
  CHECK(model.kv.expanded_values == 40'960);
  // The layer that predicts further tokens is there, but neither read nor cached.
  CHECK(model.of(WeightKind::kSkipped).n_tensors == 2);
  CHECK(model.of(WeightKind::kSkipped).read_bytes == 0);
}

TEST_CASE("Keys that a plan can't do without are named, others are done without") {
  gguf::GgufWriter writer;
  writer.add("general.architecture", "llama");
  writer.add("llama.block_count", uint32_t{1});
  CHECK_THROWS_WITH(measure(writer), Contains("llama.embedding_length: missing"));
  writer.add("llama.embedding_length", "wide");
  CHECK_THROWS_WITH(measure(writer), Contains("llama.embedding_length: missing, or no number"));
  gguf::GgufWriter odd;
  odd.add("general.architecture", "odd");
  odd.add("odd.block_count", uint32_t{1});
  odd.add("odd.embedding_length", uint32_t{64});
  odd.add("odd.attention.head_count", int32_t{-5});
  odd.declare_tensor("blk.0.attn_k.weight", gguf::DType::F16, {64, 64});
  odd.declare_tensor("what.is.this", gguf::DType::F16, {64});
  const ModelFootprint model = measure(odd);
  CHECK(model.kv.values(1) == 0);
  CHECK(model.of(WeightKind::kOther).size_bytes == 128);
}

/// What the engine's own models load, rank by rank, kept where it lies.
int64_t loaded_bytes(const gguf::GgufFile& file, int rank, int tp_size) {
  const Architecture& architecture = find_architecture(file);
  const ModelConfig config = architecture.read_config(ConfigReader(file));
  ThreadGroup group(tp_size);
  CpuOps ops(select_kernels(CpuKernels::kReference), group.rank(rank),
             {.n_threads = 1, .max_tokens = 4, .max_rows = 4, .max_context = 64});
  WeightLoader loader(file, {rank, tp_size}, ops);
  const auto model = architecture.load(config, {.max_model_len = 64}, loader);
  return ops.weight_bytes();
}

/// rank_weight_bytes in the CPU's terms: one embedding table for all ranks, ropes not counted.
int64_t planned_bytes(const gguf::GgufFile& file, const ModelFootprint& model, int rank,
                      int tp_size) {
  int64_t bytes = rank_weight_bytes(file, model, tp_size)[static_cast<size_t>(rank)];
  for (const gguf::TensorInfo& tensor : file.tensors()) {
    if (tensor.name.starts_with("rope_")) bytes -= tensor.size_bytes;
  }
  return rank == 0 ? bytes : bytes - model.of(WeightKind::kEmbedding).size_bytes;
}

TEST_CASE("Ranks hold to the byte what the engine's models load") {
  int n_compared = 0;
  const auto compare = [&](const gguf::GgufFile& file, const std::string& name) {
    const ModelFootprint model = measure_model(file);
    for (const int tp_size : {1, 2, 3, 4}) {
      for (int rank = 0; rank < tp_size; ++rank) {
        INFO(name << " rank " << rank << " of " << tp_size);
        int64_t loaded = 0;
        try {
          loaded = loaded_bytes(file, rank, tp_size);
        } catch (const Error& error) {
          CHECK_THROWS_AS(rank_weight_bytes(file, model, tp_size), Error);
          continue;
        }
        CHECK(planned_bytes(file, model, rank, tp_size) == loaded);
        ++n_compared;
      }
    }
  };
  for (const tests::GoldenModel& golden : tests::golden_models())
    compare(gguf::GgufFile::open(golden.path), golden.name);
  const tests::TempDir dir;
  for (const gguf::DType dtype : {gguf::DType::Q4_K, gguf::DType::Q8_0}) {
    tests::RandomModel random;
    random.dim = 512;
    random.ffn_dim = 1280;  // five blocks of 256: uneven
    random.n_heads = 12;
    random.n_kv_heads = 4;
    random.head_dim = 64;  // 256 columns of attn_output are a block: heads end inside one
    random.dtype = dtype;
    tests::write_model(dir.path() / "m.gguf", random);
    compare(gguf::GgufFile::open(dir.path() / "m.gguf"), "random");
  }
  CHECK(n_compared > 100);
}

TEST_CASE(
    "DeepSeek-R1 on eight ranks: the table and the first steps of attention on each of them") {
  const gguf::GgufFile file = open_header(r1_header());
  const ModelFootprint model = measure_model(file);
  for (const int64_t bytes : rank_weight_bytes(file, model, 8))
    CHECK(bytes == 51'839'811'328);
  CHECK(rank_weight_bytes(file, model, 4)[3] == 102'209'107'456);
  // The shared expert has eight blocks of 256.
  CHECK_THROWS_WITH(rank_weight_bytes(file, model, 16), Contains("only 8 blocks"));
  CHECK_THROWS_WITH(rank_weight_bytes(file, model, 256), Contains("only 128 heads"));
}

Machine machine_of(const std::string& gpus) {
  Machine machine;
  machine.gpus = parse_gpus(gpus);
  return machine;
}

TEST_CASE("R1 fits eight cards of 80 GB and not eight of 40") {
  const gguf::GgufFile file = open_header(r1_header());
  const ModelFootprint model = measure_model(file);
  const MemoryPlan fits = plan_memory(file, model, machine_of("8xH800"), {});
  CHECK(fits.request.n_context == 8192);
  CHECK(fits.chosen.fits());
  CHECK(fits.chosen.n_gpus == 8);
  CHECK(fits.remedies.empty());
  const RankPlan& rank = fits.chosen.ranks[0];
  CHECK(rank.kv_bytes == 70'272 * 8192);  // a latent is on every rank
  CHECK(rank.capacity_bytes == int64_t{80} << 30);
  CHECK(fits.chosen.max_context == 163'840);
  // Read: all that is here but the table and 31 of 32 of the experts' share.
  CHECK(rank.read_bytes == 51'839'811'328 - 521'256'960 - 393'983'557'632 / 8 / 32 * 31);
  CHECK(fits.chosen.speed.limit_tokens_s == Approx(3350e9 / static_cast<double>(rank.read_bytes)));
  REQUIRE(fits.layouts.size() == 4);  // 1, 2, 4, 8
  CHECK_FALSE(fits.layouts[2].fits());
  CHECK(fits.layouts[2].max_context == 0);

  const MemoryPlan refused = plan_memory(file, model, machine_of("8xA100-40GB"), {});
  CHECK_FALSE(refused.chosen.fits());
  CHECK(refused.chosen.n_gpus == 8);
  REQUIRE(refused.remedies.size() == 2);
  CHECK(refused.remedies[0].kind == Remedy::Kind::kQuant);
  // (40 GiB - 0.58 GB - 4 % - 0.7 GB) of 51.84 GB, of 4.82 bits.
  CHECK(refused.remedies[0].bits_per_weight == Approx(3.716).epsilon(1e-3));
  CHECK(refused.remedies[0].quant == "Q3_K_S");
  // Sixteen can't be: the shared expert has eight blocks. The least memory that does:
  CHECK(refused.remedies[1].kind == Remedy::Kind::kCards);
  CHECK(refused.remedies[1].n_gpus == 4);
  CHECK(refused.remedies[1].card == "H200");
}

TEST_CASE("A context that is too long is met by a smaller cache, then by less of it") {
  const gguf::GgufFile file = open_header(dense_header(tests::kQwen2_32b));
  const ModelFootprint model = measure_model(file);
  // 19.84 GB and 1.73 GB of reserve leave 4.19 GB of 24 GiB: 15997 tokens of 256 KiB.
  const MemoryPlan fits = plan_memory(file, model, machine_of("RTX 3090"), {});
  CHECK(fits.chosen.fits());
  CHECK(fits.chosen.max_context == 15'997);
  const MemoryPlan refused =
      plan_memory(file, model, machine_of("RTX 3090"), {.n_context = 30'000});
  CHECK_FALSE(refused.chosen.fits());
  REQUIRE(refused.remedies.size() == 5);
  CHECK(refused.remedies[0].kind == Remedy::Kind::kKvType);
  CHECK(refused.remedies[0].kv_type == KvType::kFp8);
  CHECK(refused.remedies[1].kind == Remedy::Kind::kContext);
  CHECK(refused.remedies[1].n_context == 15'872);
  CHECK(refused.remedies[2].n_gpus == 2);
  CHECK(refused.remedies[3].quant == "Q3_K_S");  // 4.85 bits times 16.2 of 19.8 GB: 3.95
  CHECK(refused.remedies[4].card == "RTX 5090");
  const MemoryPlan smaller = plan_memory(file, model, machine_of("RTX 3090"),
                                         {.n_context = 30'000, .kv_type = KvType::kFp8});
  CHECK(smaller.chosen.fits());
}

TEST_CASE("A remedy is one: the plan that follows it fits") {
  for (const char* gpus : {"1xRTX 3060", "2x16GB", "8xA100-40GB", "4xH100", "1xGTX 1650"}) {
    for (const gguf::GgufWriter& header :
         {dense_header(tests::kQwen2_14b), dense_header(tests::kQwen2_32b),
          dense_header(tests::kLlama3_70b), r1_header()}) {
      const gguf::GgufFile file = open_header(header);
      const ModelFootprint model = measure_model(file);
      const MemoryPlan plan = plan_memory(file, model, machine_of(gpus), {.n_context = 32'768});
      CHECK(plan.chosen.fits() == plan.remedies.empty());
      for (const Remedy& remedy : plan.remedies) {
        Machine machine = machine_of(gpus);
        PlanRequest request = plan.request;
        request.tp_size = plan.chosen.n_gpus;
        if (remedy.kind == Remedy::Kind::kKvType) request.kv_type = remedy.kv_type;
        if (remedy.kind == Remedy::Kind::kContext) request.n_context = remedy.n_context;
        if (remedy.kind == Remedy::Kind::kGpus) {
          machine.gpus.resize(static_cast<size_t>(remedy.n_gpus), machine.gpus[0]);
          request.tp_size = remedy.n_gpus;
        }
        if (remedy.kind == Remedy::Kind::kCards) {
          machine = machine_of(std::to_string(remedy.n_gpus) + "x" + remedy.card);
          request.tp_size = remedy.n_gpus;
        }
        if (remedy.kind == Remedy::Kind::kQuant) {
          CHECK(remedy.bits_per_weight < model.bits_per_weight());
          continue;
        }
        INFO(gpus << " " << model.total.size_bytes);
        CHECK(plan_memory(file, model, machine, request).chosen.fits());
      }
    }
  }
}

TEST_CASE("More ranks than heads can't be, and a plan says so") {
  const gguf::GgufFile file = open_header(dense_header(tests::kQwen2_1b));
  const ModelFootprint model = measure_model(file);
  const MemoryPlan plan = plan_memory(file, model, machine_of("8xH100"), {});
  CHECK(plan.chosen.n_gpus == 1);
  REQUIRE(plan.layouts.size() == 4);
  CHECK(plan.layouts[1].problem.empty());
  CHECK_THAT(plan.layouts[2].problem, Contains("only 2 key/value heads"));
  const MemoryPlan four = plan_memory(file, model, machine_of("8xH100"), {.tp_size = 4});
  CHECK_FALSE(four.chosen.fits());
  CHECK_THROWS_WITH(plan_memory(file, model, machine_of("8xH100"), {.tp_size = 9}),
                    Contains("there are 8"));
}

TEST_CASE("Speed is bytes over bandwidth, and no number without a bandwidth") {
  const gguf::GgufFile file = open_header(dense_header(tests::kLlama3_8b));
  const ModelFootprint model = measure_model(file);
  const MemoryPlan one = plan_memory(file, model, machine_of("H100"), {});
  // 4.617 GB at 3350 GB/s: 1.378 ms; at 60 % 2.297 ms, and 32 layers of 5 kernels of 3 us.
  CHECK(one.chosen.speed.limit_tokens_s == Approx(725.5).epsilon(1e-3));
  CHECK(one.chosen.speed.expected_tokens_s == Approx(360.1).epsilon(1e-3));
  const MemoryPlan two = plan_memory(file, model, machine_of("2xH100"), {.tp_size = 2});
  CHECK(two.chosen.speed.limit_tokens_s > 1.9 * one.chosen.speed.limit_tokens_s);
  CHECK(two.chosen.speed.expected_tokens_s < 2 * one.chosen.speed.expected_tokens_s);
  CHECK(plan_memory(file, model, machine_of("24GB"), {}).chosen.speed.limit_tokens_s == 0);
  Machine host;
  host.host_bytes = int64_t{16} << 30;
  host.host_bandwidth_gb_s = 50;
  const MemoryPlan on_host = plan_memory(file, model, host, {});
  CHECK(on_host.chosen.n_gpus == 0);
  CHECK(on_host.chosen.fits());
  CHECK(on_host.chosen.speed.limit_tokens_s == Approx(10.83).epsilon(1e-3));
  // Enough cores leave it to the memory; few are what it waits for.
  CHECK(on_host.chosen.speed.expected_tokens_s == Approx(0.6 * 10.83).epsilon(1e-3));
  host.host_cores = 8;
  CHECK(plan_memory(file, model, host, {}).chosen.speed.expected_tokens_s ==
        on_host.chosen.speed.expected_tokens_s);
  host.host_cores = 2;
  const double expected = 2 * kCoreGbS * 1e9 / static_cast<double>(model.total.read_bytes);
  const Layout few = plan_memory(file, model, host, {}).chosen;
  CHECK(few.speed.expected_tokens_s == Approx(expected));
  CHECK(few.speed.limit_tokens_s == on_host.chosen.speed.limit_tokens_s);
  const HostNeed need = host_need(model);
  CHECK(need.n_cores == 3);  // 4.62 GB read five times, 8 GB/s a core
  CHECK(need.bandwidth_gb_s == Approx(5 * 4.617 / 0.6).epsilon(1e-3));
}

TEST_CASE("Types of the cache are read by name") {
  CHECK(parse_kv_type("FP8") == KvType::kFp8);
  CHECK(parse_kv_type("q8_0") == KvType::kQ8_0);
  CHECK_THROWS_WITH(parse_kv_type("int3"), Contains("f32, f16, bf16, q8_0, fp8, q4_0"));
  for (const KvType type :
       {KvType::kF32, KvType::kF16, KvType::kBf16, KvType::kQ8_0, KvType::kFp8, KvType::kQ4_0})
    CHECK(parse_kv_type(kv_type_name(type)) == type);
}

}  // namespace
}  // namespace dsctl::engine
