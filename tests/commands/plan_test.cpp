#include "commands/plan.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "commands/error.h"
#include "commands/plan_machine.h"
#include "commands/pull_display.h"
#include "commands/pull_fit.h"
#include "engine/error.h"
#include "tests/support/catch.h"
#include "tests/support/commands_store.h"
#include "tests/support/model_headers.h"
#include "tests/support/registry_http_server.h"

namespace dsctl::commands {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;
using Json = nlohmann::json;
using tests::ServedReply;
using tests::ServedRequest;

/// A file of the model's size, all holes but its header.
fs::path write_sparse(const fs::path& path, const gguf::GgufLayout& layout) {
  std::ofstream(path, std::ios::binary) << layout.header;
  fs::resize_file(path, static_cast<uintmax_t>(layout.size_bytes));
  return path;
}

constexpr int kShards = 9;

/// R1 cut as its publisher did: the header of each of nine shards and its size.
std::vector<std::pair<std::string, gguf::GgufLayout>> r1_shards() {
  const gguf::GgufFile whole = tests::open_header(tests::r1_header());
  const size_t n_tensors = whole.tensors().size();
  std::vector<std::pair<std::string, gguf::GgufLayout>> shards;
  for (int i = 0; i < kShards; ++i) {
    gguf::GgufWriter writer;
    if (i == 0) {
      for (const gguf::KeyValue& entry : whole.metadata())
        writer.add_value(entry.key, entry.value);
      // As long as the real one: what makes the first header large.
      writer.add_strings("tokenizer.ggml.tokens", std::vector<std::string>(129'280, "a token"));
    }
    writer.add("split.no", static_cast<uint16_t>(i));
    writer.add("split.count", static_cast<uint16_t>(kShards));
    writer.add("split.tensors.count", static_cast<int32_t>(n_tensors));
    for (size_t t = n_tensors * i / kShards; t < n_tensors * (i + 1) / kShards; ++t) {
      const gguf::TensorInfo& tensor = whole.tensors()[t];
      writer.declare_tensor(tensor.name, tensor.dtype,
                            std::span(tensor.dims.data(), static_cast<size_t>(tensor.n_dims)));
    }
    char name[64];
    std::snprintf(name, sizeof(name), "DeepSeek-R1-Q4_K_M-%05d-of-%05d.gguf", i + 1, kShards);
    shards.emplace_back(name, writer.layout());
  }
  return shards;
}

/// Answers for files of which all but the header is zeros.
struct SparseServer {
  std::map<std::string, gguf::GgufLayout> files;
  bool has_ranges = true;
  int64_t wrong_begin = 0;
  tests::HttpServer server{[this](const ServedRequest& request) { return answer(request); }};

  ServedReply answer(const ServedRequest& request) const {
    const auto file = files.find(request.path.substr(1));
    if (file == files.end()) return {.status = 404};
    const int64_t size = file->second.size_bytes;
    const auto range = request.range();
    ServedReply reply;
    if (!range || !has_ranges) {
      reply.body = file->second.header;
      reply.body.resize(static_cast<size_t>(std::min<int64_t>(size, 64 << 20)));
      return reply;
    }
    const int64_t end = range->second < 0 ? size : std::min(size, range->second);
    reply.status = 206;
    reply.headers = {"Content-Range: bytes " + std::to_string(range->first + wrong_begin) + "-" +
                     std::to_string(end - 1) + "/" + std::to_string(size)};
    std::string body = file->second.header.substr(
        std::min<size_t>(file->second.header.size(), static_cast<size_t>(range->first)),
        static_cast<size_t>(end - range->first));
    body.resize(static_cast<size_t>(end - range->first));
    reply.body = std::move(body);
    return reply;
  }
};

struct Planner : tests::ModelStore {
  int run(PlanOptions options) {
    console.printed.clear();
    return plan(settings, options, console);
  }
  Json run_json(PlanOptions options, int expected) {
    options.json = true;
    CHECK(run(options) == expected);
    return Json::parse(console.printed);
  }
};

TEST_CASE("plan tells what a model is made of, what it needs and that it fits") {
  Planner planner;
  const fs::path file = write_sparse(planner.dir.path() / "r1.gguf", tests::r1_header().layout());
  CHECK(planner.run({.models = {file.string()}, .gpus = "8xH800"}) == 0);
  CHECK_THAT(planner.console.printed,
             Contains("671.0B, of them 36.6B active for a token (8 of 256 experts)") &&
                 Contains("404.4 GB, 4.82 bits each") && Contains("routed experts") &&
                 Contains("70272 bytes in f16: latent rows of 576 values (all heads expanded: "
                          "4997120 bytes)") &&
                 Contains("On 8 x H800 (80 GiB, 3350 GB/s each)") &&
                 Contains("Fits 8 x H800 with 8192 tokens of context; up to 163840 would."));
  const Json json = planner.run_json({.models = {file.string()}, .gpus = "8xH800"}, 0);
  const Json& model = json["models"][0];
  CHECK(model["fits"] == true);
  CHECK(model["parameters"] == 671'026'419'200);
  CHECK(model["active_parameters"] == 36'625'618'432);
  CHECK(model["weights"]["size_bytes"] == 404'424'884'224);
  CHECK(model["weights"]["layer_bytes"].size() == 61);
  CHECK(model["kv_cache"]["bytes_per_token"] == 70'272);
  CHECK(model["chosen"]["gpus"] == 8);
  CHECK(model["chosen"]["ranks"].size() == 8);
  CHECK(model["chosen"]["ranks"][7]["weight_bytes"] == 51'839'811'328);
  CHECK(model["layouts"].size() == 4);
  CHECK(json["assumptions"]["bandwidth_share"] == 0.6);
}

TEST_CASE("plan refuses with numbers, and says what would do") {
  Planner planner;
  const fs::path file =
      write_sparse(planner.dir.path() / "q.gguf", tests::dense_header(tests::kQwen2_32b).layout());
  const PlanOptions options{.models = {file.string()}, .gpus = "RTX 3090", .n_context = 30'000};
  CHECK(planner.run(options) == 1);
  CHECK_THAT(
      planner.console.printed,
      Contains("Does not fit 1 x RTX 3090 with 30000 tokens of context: 29.44 GB are needed, "
               "25.77 GB are there (3.67 GB too much). Nothing is spilled.\n"
               "It would fit with a KV cache in fp8.\n"
               "  or with at most 15872 tokens of context.\n"
               "  or with 2 x RTX 3090.\n"
               "  or with a quant of at most 3.95 bits a weight (Q3_K_S).\n"
               "  or with 1 x RTX 5090.\n"));
  const Json json = planner.run_json(options, 1);
  CHECK(json["models"][0]["remedies"][0]["kv_type"] == "fp8");
  PlanOptions fp8 = options;
  fp8.kv_type = "fp8";
  CHECK(planner.run(fp8) == 0);
  CHECK_THROWS_WITH(planner.run({.models = {file.string()}, .gpus = "2xH100", .tp_size = 3}),
                    Contains("there are 2"));
  CHECK_THROWS_WITH(planner.run({.models = {file.string()}, .gpus = "2xVoodoo"}),
                    Contains("is no known GPU"));
  CHECK_THROWS_WITH(planner.run({.models = {"./none.gguf"}}), Contains("none.gguf"));
}

TEST_CASE("plan shows the window of a model that has one") {
  Planner planner;
  const fs::path file =
      write_sparse(planner.dir.path() / "g.gguf", tests::dense_header(tests::kGemma3_1b).layout());
  CHECK(planner.run({.models = {file.string()}, .ram = "16GB@40"}) == 0);
  CHECK_THAT(planner.console.printed, Contains("22 of 26 layers see 512 tokens") &&
                                          Contains("in f16: 1 key/value heads for 4 heads") &&
                                          Contains("On memory, 16 GiB at 40 GB/s"));
}

TEST_CASE("Several models give the table by which a machine is chosen") {
  Planner planner;
  std::vector<std::string> files;
  for (const auto& [name, model] :
       std::vector<std::pair<std::string, tests::DenseModel>>{{"1.5b", tests::kQwen2_1b},
                                                              {"7b", tests::kQwen2_7b},
                                                              {"14b", tests::kQwen2_14b},
                                                              {"32b", tests::kQwen2_32b},
                                                              {"70b", tests::kLlama3_70b}})
    files.push_back(
        write_sparse(planner.dir.path() / (name + ".gguf"), tests::dense_header(model).layout())
            .string());
  files.push_back(
      write_sparse(planner.dir.path() / "671b.gguf", tests::r1_header().layout()).string());
  const Json json = planner.run_json({.models = files, .ram = "64GB@40"}, 1);
  std::vector<std::string> smallest;
  std::vector<bool> fits;
  for (const Json& model : json["models"]) {
    smallest.push_back(model["smallest_gpus"]["text"]);
    fits.push_back(model["fits"]);
  }
  CHECK(smallest == std::vector<std::string>{"1 x GTX 1650", "1 x RTX 3050", "1 x RTX 2080 Ti",
                                             "1 x RTX 3090", "1 x A40", "4 x H200"});
  CHECK(fits == std::vector<bool>{true, true, true, true, true, false});
  std::vector<int> cores;
  for (const Json& model : json["models"])
    cores.push_back(model["without_gpus"]["cores"]);
  CHECK(cores == std::vector<int>{1, 3, 6, 13, 27, 14});
  CHECK(planner.run({.models = files, .gpus = "8xA100-40GB"}) == 1);
  CHECK_THAT(planner.console.printed,
             Contains("MODEL") && Contains("SMALLEST GPUS") && Contains("404.4 GB") &&
                 Contains("CORES WITHOUT") && Contains("13 at 1") &&
                 Contains("what gives 5 tokens/s without GPUs, 8 GB/s of weights a core"));
}

TEST_CASE("plan reads a model of the registry") {
  Planner planner;
  planner.write_model("m.gguf");
  planner.create("mine", "FROM m.gguf\n");
  CHECK_THROWS_WITH(planner.run({.models = {"mine"}, .ram = "1GB"}),
                    Contains("llama.block_count: missing"));
  // No hub is asked for what is named as a file.
  CHECK_THROWS_WITH(planner.run({.models = {"nowhere.gguf"}, .ram = "1GB"}),
                    Contains("nowhere.gguf: can't be opened"));
}

TEST_CASE("plan reads nine shards of 404 GB from their headers, sparse files or over HTTP") {
  Planner planner;
  SparseServer server;
  fs::path first;
  int64_t headers_bytes = 0;
  int64_t size_bytes = 0;
  for (auto& [name, layout] : r1_shards()) {
    const fs::path path = write_sparse(planner.dir.path() / name, layout);
    if (first.empty()) first = path;
    headers_bytes += static_cast<int64_t>(layout.header.size());
    size_bytes += layout.size_bytes;
    server.files[name] = std::move(layout);
  }
  CHECK(size_bytes > 404'000'000'000);
  const Json local = planner.run_json({.models = {first.string()}, .gpus = "8xH800"}, 0);
  for (const char* shard : {"1", "5", "9"}) {
    const std::string url =
        server.server.url("/DeepSeek-R1-Q4_K_M-0000" + std::string(shard) + "-of-00009.gguf?k=v");
    const Json remote = planner.run_json({.models = {url}, .gpus = "8xH800"}, 0);
    CHECK(remote["models"][0]["weights"] == local["models"][0]["weights"]);
    CHECK(remote["models"][0]["chosen"] == local["models"][0]["chosen"]);
  }
  // Three times: the headers, and what the steps of the reader take beyond them.
  CHECK(server.server.body_bytes() < 3 * (4 * headers_bytes + 9 * (512 << 10)));

  SECTION("a server without ranges sends all, of which the beginning is taken") {
    server.has_ranges = false;
    // Its size is what it sends: too short for the tensors.
    CHECK_THROWS_WITH(planner.run({.models = {server.server.url("/" + first.filename().string())},
                                   .gpus = "8xH800"}),
                      Contains("bytes"));
  }
  SECTION("a server that sends other bytes than were asked for is refused") {
    server.wrong_begin = 7;
    CHECK_THROWS_WITH(planner.run({.models = {server.server.url("/" + first.filename().string())},
                                   .gpus = "8xH800"}),
                      Contains("asked for bytes from 0, got \"bytes 7-"));
  }
  SECTION("a shard that is not there is named") {
    server.files.erase("DeepSeek-R1-Q4_K_M-00004-of-00009.gguf");
    CHECK_THROWS_WITH(planner.run({.models = {server.server.url("/" + first.filename().string())},
                                   .gpus = "8xH800"}),
                      Contains("00004-of-00009.gguf: ") && Contains("answered 404"));
  }
}

/// A repository with R1 in nine shards, called Q4_K_M, and the same at other sizes.
registry::Resolved r1_repository(SparseServer& server, const std::vector<std::string>& labels,
                                 const std::vector<double>& sizes) {
  registry::Resolved resolved;
  resolved.ref = registry::RemoteRef::parse("unsloth/DeepSeek-R1-GGUF", "hf");
  for (auto& [name, layout] : r1_shards()) {
    registry::RemoteFile& file = resolved.files.emplace_back();
    file.path = name;
    file.size_bytes = layout.size_bytes;
    file.locate = [url = server.server.url("/" + name)] {
      return registry::DownloadUrl{url, {}, 0};
    };
    server.files[name] = std::move(layout);
  }
  for (size_t i = 0; i < labels.size(); ++i) {
    registry::RemoteVariant& variant = resolved.variants.emplace_back();
    variant.label = labels[i];
    variant.size_bytes = static_cast<int64_t>(sizes[i] * 1e9);
    for (size_t file_idx = 0; file_idx < size_t{kShards}; ++file_idx)
      variant.file_idxs.push_back(file_idx);
  }
  return resolved;
}

TEST_CASE("The quants of a repository are planned from the headers of one of them") {
  SparseServer server;
  registry::Resolved resolved =
      r1_repository(server, {"Q4_K_M", "Q2_K", "Q8_0", "odd"}, {404.4, 244, 713, 100});
  resolved.variants[3].problem = "shard 3 of 9 is missing";
  const VariantFits fits = fits_of_variants(resolved, described_machine("8xH800", ""), {}, {}, {});
  CHECK(fits.problem.empty());
  REQUIRE(fits.texts.size() == 4);
  CHECK(fits.texts[0] == "fits 8 x H800");
  CHECK(fits.texts[1] == "fits 4 x H800");
  CHECK_THAT(fits.texts[2], Contains("too large: needs ") && Contains("on each GPU of 80 GiB"));
  CHECK_THAT(choice_text(resolved, fits), Contains("Q8_0      713 GB") && Contains("odd") &&
                                              Contains("shard 3 of 9 is missing"));
  const VariantFits on_host =
      fits_of_variants(resolved, described_machine("", "400GB"), {}, {}, {});
  CHECK(on_host.texts[1] == "fits memory");
  CHECK_THAT(on_host.texts[2], Contains("GiB of 400 GiB"));
  CHECK(server.server.body_bytes() < 60'000'000);

  server.files.clear();
  const VariantFits unknown =
      fits_of_variants(resolved, described_machine("8xH800", ""), {}, {}, {});
  CHECK_THAT(unknown.problem, Contains("answered 404"));
  CHECK(unknown.texts == std::vector<std::string>(4));
}

TEST_CASE("A pull says whether the model fits, and keeps what it read for that") {
  SparseServer server;
  PullPlan plan;
  plan.resolved = r1_repository(server, {"Q4_K_M"}, {404.4});
  plan.name = registry::ModelName::parse("hf.co/unsloth/DeepSeek-R1-GGUF:Q4_K_M");
  for (size_t i = 0; i < size_t{kShards}; ++i)
    plan.files.push_back({.file_idx = i, .media_type = registry::media_type::kModel});
  add_fit(plan, described_machine("8xH800", ""), {}, {}, {});
  CHECK(plan.fit.empty());  // no model, nothing to say
  plan.model_bytes = 404'400'000'000;
  add_fit(plan, described_machine("8xH800", ""), {}, {}, {});
  CHECK_THAT(plan.fit, Contains("fits 8 x H800") && Contains("tokens/s"));
  int64_t kept_bytes = 0;
  for (const PlannedFile& planned : plan.files) {
    const gguf::GgufLayout& layout = server.files.at(plan.file(planned).path);
    CHECK(planned.beginning.size() >= layout.header.size());
    kept_bytes += static_cast<int64_t>(planned.beginning.size());
  }
  CHECK(kept_bytes == server.server.body_bytes());
  CHECK(kept_bytes < plan.model_bytes / 1000);

  // What is here already is not fetched for it; a hole instead of a header is.
  tests::TempDir dir;
  for (PlannedFile& planned : plan.files) {
    planned.partial = dir.path() / plan.file(planned).path;
    write_sparse(planned.partial, server.files.at(plan.file(planned).path));
  }
  const int64_t before = server.server.body_bytes();
  const std::string fit = plan.fit;
  add_fit(plan, described_machine("8xH800", ""), {}, {}, {});
  CHECK((plan.fit == fit && server.server.body_bytes() == before));
  std::ofstream(plan.files[3].partial, std::ios::in | std::ios::binary).write("\0\0\0\0", 4);
  add_fit(plan, described_machine("8xH800", ""), {}, {}, {});
  CHECK((plan.fit == fit && server.server.body_bytes() > before));

  server.files.clear();
  plan.files[0].partial.clear();
  add_fit(plan, described_machine("8xH800", ""), {}, {}, {});
  CHECK_THAT(plan.fit, Contains("can't be planned: ") && Contains("answered 404"));
}

TEST_CASE("A header that claims more than any model has is not fetched") {
  Planner planner;
  SparseServer server;
  gguf::GgufLayout layout;
  gguf::GgufWriter writer;
  writer.add("general.architecture", "llama");
  layout.header = writer.layout().header;
  // One key more, a string of 300 MB.
  layout.header[16] = 2;
  layout.header.resize(layout.header.find("llama") + 5);
  const uint64_t key_size = 1;
  const uint32_t type = 8;
  const uint64_t size = 300 << 20;
  layout.header.append(reinterpret_cast<const char*>(&key_size), 8).append("k");
  layout.header.append(reinterpret_cast<const char*>(&type), 4);
  layout.header.append(reinterpret_cast<const char*>(&size), 8);
  layout.size_bytes = int64_t{1} << 30;
  server.files["m.gguf"] = layout;
  CHECK_THROWS_WITH(planner.run({.models = {server.server.url("/m.gguf")}, .gpus = "H100"}),
                    Contains("its header needs more than 256 MiB"));
  CHECK(server.server.body_bytes() < 1 << 20);
}

TEST_CASE("fit_summary is one line with the number that counts") {
  const gguf::GgufFile file = tests::open_header(tests::r1_header());
  const std::string fits = fit_summary(file, described_machine("8xH800", ""));
  CHECK_THAT(fits, Contains("fits 8 x H800 (80 GiB, 3350 GB/s each) with up to 163840 tokens of "
                            "context, about ") &&
                       Contains(" tokens/s"));
  CHECK(
      fit_summary(file, described_machine("", "256GB")) ==
      "doesn't fit memory, 256 GiB with 8192 tokens of context: needs 389 GiB; would with a quant "
      "of at most 3.12 bits a weight (Q2_K)");
}

TEST_CASE("A machine is described by its cards or its memory") {
  CHECK(machine_text(described_machine("2x3090", "")) == "2 x RTX 3090 (24 GiB, 936 GB/s each)");
  CHECK(machine_text(described_machine("1x2.5GB", "")) == "1 x 2.5GB GPU (2.5 GiB)");
  CHECK(described_machine("", "1.5TB@300").host_bytes == int64_t{1536} << 30);
  CHECK(described_machine("", "64").host_bytes == int64_t{64} << 30);
  for (const char* ram : {"lots", "-5GB", "64GB@", "64GB@fast", "0", "1e9GB", "nan"})
    CHECK_THROWS_WITH(described_machine("", ram), Contains("--ram"));
  engine::Machine with_cores = described_machine("", "64GB@40");
  with_cores.host_cores = 8;
  CHECK(machine_text(with_cores) == "memory, 64 GiB at 40 GB/s, 8 cores");
  const engine::Machine here = this_machine();
  CHECK(here.host_cores > 0);
  CHECK(here.host_bytes > 0);
  if (here.gpus.empty()) CHECK(here.host_bandwidth_gb_s > 0.1);
}

}  // namespace
}  // namespace dsctl::commands
