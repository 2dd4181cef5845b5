#include "commands/show_file.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "gguf/error.h"
#include "gguf/gguf_writer.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"

namespace dsctl::commands {
namespace {

using nlohmann::json;

/// Keeps what is printed.
class PrintRecorder : public Console {
 public:
  void print(std::string_view text) override { printed += text; }
  void note(std::string_view line) override { notes += line; }
  void progress(std::string_view, int64_t, int64_t) override {}
  void finish_progress() override {}
  std::optional<std::string> read_line(std::string_view) override { return std::nullopt; }
  bool stdin_is_terminal() const override { return false; }
  bool stdout_is_terminal() const override { return terminal_width > 0; }
  int width() const override { return terminal_width; }
  bool interrupted() const override { return false; }
  void clear_interrupt() override {}

  std::string printed;
  std::string notes;
  int terminal_width = 0;  // 0: no terminal
};

gguf::GgufWriter small_model() {
  gguf::GgufWriter writer;
  writer.add("general.architecture", "llama");
  writer.add("general.name", "Tiny \x1b[31m one");
  writer.add("general.license", "mit");
  writer.add("general.file_type", uint32_t{15});
  writer.add("llama.context_length", uint32_t{2048});
  writer.add("llama.embedding_length", uint64_t{64});
  writer.add("llama.block_count", int32_t{1});
  writer.add("llama.rope.freq_base", 1e-5F);
  writer.add("test.nan", std::numeric_limits<double>::quiet_NaN());
  writer.add("test.flag", true);
  writer.add("test.broken", "a\xff");
  writer.add_array("test.short", std::vector<int32_t>{1, -2});
  writer.add_bools("test.bools", {true, false});
  writer.add_strings("tokenizer.ggml.tokens", std::vector<std::string>(100, "tok"));
  writer.add_tensor("token_embd.weight", gguf::DType::Q8_0, {64, 100},
                    std::vector<std::byte>(2 * 34 * 100));
  writer.add_tensor("output_norm.weight", {64}, std::vector<float>(64));
  return writer;
}

std::string shown(const gguf::GgufWriter& writer, ShowFileOptions options, int width = 0) {
  const tests::TempDir dir;
  options.path = dir.path() / "tiny.gguf";
  writer.write(options.path);
  PrintRecorder console;
  console.terminal_width = width;
  CHECK(show_file(options, console) == 0);
  CHECK(console.notes.empty());
  return console.printed;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_CASE("show_file prints sections of a model and nothing it was not asked for") {
  CHECK(shown(small_model(), {}) ==
        "  Model\n"
        "    architecture        llama\n"
        "    parameters          6K\n"
        "    context length      2048\n"
        "    embedding length    64\n"
        "    quantization        Q4_K_M\n"
        "    name                Tiny \\x1b[31m one\n"
        "    blocks              1\n"
        "    vocabulary          100\n"
        "\n"
        "  File\n"
        "    format           GGUF v3\n"
        "    size             8.8 KB\n"
        "    tensors          2\n"
        "    metadata keys    14\n"
        "\n"
        "  Tensor types\n"
        "    Q8_0    1    6.8 KB\n"
        "    F32     1    256 B\n"
        "\n"
        "  License\n"
        "    mit\n"
        "\n");
}

TEST_CASE("show_file lists metadata and tensors when asked") {
  ShowFileOptions options;
  options.metadata = true;
  const std::string metadata = shown(small_model(), options);
  CHECK(contains(metadata, "    llama.rope.freq_base      f32         1e-05\n"));
  CHECK(contains(metadata, "    test.flag                 bool        true\n"));
  CHECK(contains(metadata, "    test.broken               string      a\\xff\n"));
  CHECK(contains(metadata, "    test.short                i32[]       [1, -2]\n"));
  CHECK(contains(metadata, "    test.bools                bool[]      [true, false]\n"));
  CHECK(contains(metadata, "\"tok\", ...] (100 elements)\n"));
  CHECK(!contains(metadata, "  Tensors\n"));
  options.metadata = false;
  options.tensors = true;
  const std::string tensors = shown(small_model(), options);
  CHECK(contains(tensors,
                 "  Tensors\n"
                 "    token_embd.weight     Q8_0    [64, 100]    6.8 KB\n"
                 "    output_norm.weight    F32     [64]         256 B\n"));
  CHECK(!contains(tensors, "  Metadata\n"));
}

TEST_CASE("show_file cuts long lines on a terminal only") {
  ShowFileOptions options;
  options.metadata = true;
  const std::string on_terminal = shown(small_model(), options, 80);
  size_t begin = 0;
  while (begin < on_terminal.size()) {
    const size_t end = on_terminal.find('\n', begin);
    CHECK(end - begin <= 80);
    begin = end + 1;
  }
  CHECK(!contains(on_terminal, "(100 elements)"));
}

TEST_CASE("show_file gives one JSON object of the documented form") {
  ShowFileOptions options;
  options.json = true;
  const std::string text = shown(small_model(), options);
  CHECK(contains(text, "\"llama.rope.freq_base\": 1e-05"));
  const json object = json::parse(text);
  CHECK(object["format"] == json{{"name", "gguf"}, {"version", 3}});
  CHECK(object["shards"].size() == 1);
  CHECK(object["architecture"] == "llama");
  CHECK(object["name"] == "Tiny \x1b[31m one");
  CHECK(object["quantization"] == "Q4_K_M");
  CHECK(object["parameter_count"] == 6464);
  CHECK(object["context_length"] == 2048);
  CHECK(object["embedding_length"] == 64);
  CHECK(object["block_count"] == 1);
  CHECK(object["vocab_size"] == 100);
  CHECK(object["tensor_types"][0] == json{{"type", "Q8_0"}, {"count", 1}, {"size_bytes", 6800}});
  CHECK(object["metadata"]["test.flag"] == true);
  CHECK(object["metadata"]["test.nan"].is_null());
  CHECK(object["metadata"]["test.broken"] == "a\xef\xbf\xbd");
  CHECK(object["metadata"]["test.short"] == json{1, -2});
  CHECK(object["metadata"]["test.bools"] == json{true, false});
  CHECK(object["metadata"]["tokenizer.ggml.tokens"].is_null());
  REQUIRE(object["tensors"].size() == 2);
  CHECK(object["tensors"][0]["name"] == "token_embd.weight");
  CHECK(object["tensors"][0]["shape"] == json{64, 100});
  CHECK(object["tensors"][0]["size_bytes"] == 6800);
  CHECK(object["tensors"][0]["shard"] == 0);
  CHECK(object["tensors"][0]["offset_bytes"].get<int64_t>() + 6816 ==
        object["tensors"][1]["offset_bytes"].get<int64_t>());

  options.metadata = true;
  const json full = json::parse(shown(small_model(), options));
  CHECK(full["metadata"]["tokenizer.ggml.tokens"].size() == 100);
}

TEST_CASE("show_file tells of experts: how many, used and shared") {
  gguf::GgufWriter writer;
  writer.add("general.architecture", "deepseek2");
  writer.add("deepseek2.expert_count", uint32_t{256});
  writer.add("deepseek2.expert_used_count", uint32_t{8});
  CHECK(contains(shown(writer, {}), "    experts         256, 8 used by a token\n"));
  writer.add("deepseek2.expert_shared_count", uint32_t{1});
  CHECK(
      contains(shown(writer, {}), "    experts         256, 8 used by a token, 1 shared by all\n"));
  ShowFileOptions options;
  options.json = true;
  const json object = json::parse(shown(writer, options));
  CHECK(object["expert_count"] == 256);
  CHECK(object["expert_used_count"] == 8);
  CHECK(object["expert_shared_count"] == 1);
  CHECK(!contains(shown(small_model(), {}), "experts"));
}

TEST_CASE("show_file says null for what the file does not say") {
  ShowFileOptions options;
  options.json = true;
  const json object = json::parse(shown(gguf::GgufWriter(), options));
  for (const char* key :
       {"architecture", "name", "license", "quantization", "context_length", "embedding_length",
        "block_count", "vocab_size", "expert_count", "expert_used_count", "expert_shared_count"}) {
    INFO(key);
    CHECK(object.at(key).is_null());
  }
  CHECK(object["parameter_count"] == 0);
  CHECK(object["metadata"].is_object());
  CHECK(object["tensors"].is_array());
  CHECK(contains(shown(gguf::GgufWriter(), {}), "    parameters    0\n"));
}

TEST_CASE("show_file shows all shards of a split as one model") {
  const tests::TempDir dir;
  gguf::SplitOptions split;
  split.n_tensors_per_shard = 1;
  const auto paths = small_model().write_split(dir.path(), "tiny", split);
  ShowFileOptions options;
  options.path = paths[1];
  options.tensors = true;
  PrintRecorder console;
  show_file(options, console);
  CHECK(contains(console.printed, "    shards           2\n"));
  CHECK(contains(console.printed,
                 "    token_embd.weight     Q8_0    [64, 100]    6.8 KB    shard 1\n"
                 "    output_norm.weight    F32     [64]         256 B     shard 2\n"));
  options.json = true;
  PrintRecorder json_console;
  show_file(options, json_console);
  const json object = json::parse(json_console.printed);
  CHECK(object["shards"][1]["path"] == paths[1].string());
  CHECK(object["tensors"][1]["shard"] == 1);
}

TEST_CASE("show_file throws for what is no model") {
  ShowFileOptions options;
  options.path = "/nonexistent/model.gguf";
  PrintRecorder console;
  CHECK_THROWS_AS(show_file(options, console), gguf::Error);
  CHECK(console.printed.empty());
}

TEST_CASE("show_file names the quantisation by file type, else by the largest tensor type") {
  const auto quantization = [](uint32_t file_type) {
    gguf::GgufWriter writer;
    writer.add("general.file_type", file_type);
    writer.add_tensor("a", {32}, std::vector<float>(32));
    writer.add_tensor("b", gguf::DType::Q8_0, {640}, std::vector<std::byte>(680));
    ShowFileOptions options;
    options.json = true;
    return json::parse(shown(writer, options))["quantization"].get<std::string>();
  };
  CHECK(quantization(15) == "Q4_K_M");
  CHECK(quantization(1024 + 2) == "Q4_0");
  CHECK(quantization(38) == "MXFP4");
  CHECK(quantization(39) == "NVFP4");
  CHECK(quantization(33) == "Q8_0");  // retired
  CHECK(quantization(4000) == "Q8_0");
}

}  // namespace
}  // namespace dsctl::commands
