#include "commands/quantize.h"

#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include "commands/error.h"
#include "gguf/error.h"
#include "gguf/gguf_file.h"
#include "gguf/gguf_writer.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"
#include "tests/support/recording_console.h"

namespace dsctl::commands {
namespace {

using Catch::Matchers::Contains;

class QuantizeCommand {
 public:
  QuantizeCommand() {
    gguf::GgufWriter writer;
    writer.add("general.architecture", "llama");
    writer.add("llama.block_count", uint32_t{1});
    writer.add_tensor("blk.0.attn_q.weight", {256, 4}, std::vector<float>(1024, 0.5F));
    writer.add_tensor("blk.0.attn_v.weight", {96, 4}, std::vector<float>(384, 0.25F));
    writer.write(dir.path() / "model.gguf");
    options.model = (dir.path() / "model.gguf").string();
    options.out = (dir.path() / "out.gguf").string();
    options.type = "q4_k_s";
  }

  int run() { return quantize(Settings{}, options, console); }

  tests::TempDir dir;
  QuantizeOptions options;
  tests::RecordingConsole console;
};

TEST_CASE("quantize writes the file and says where") {
  QuantizeCommand command;
  command.options.tensor_types = {"attn_q=q6_k"};
  CHECK(command.run() == 0);
  CHECK(command.console.printed == command.options.out + "\n");
  const auto result = gguf::GgufFile::open(command.options.out);
  CHECK(result.find_tensor("blk.0.attn_q.weight")->dtype == gguf::DType::Q6_K);
  CHECK(result.find_tensor("blk.0.attn_v.weight")->dtype == gguf::DType::Q5_1);
}

TEST_CASE("quantize replaces a file only when told to, and never its source") {
  QuantizeCommand command;
  std::ofstream(command.options.out) << "precious";
  for (const bool dry_run : {false, true}) {
    command.options.dry_run = dry_run;
    CHECK_THROWS_WITH(command.run(), Contains("out.gguf: exists already; --force replaces it"));
  }
  command.options.dry_run = false;
  command.options.force = true;
  // What was there stays when the new file doesn't come about.
  const std::string model = command.options.model;
  gguf::GgufWriter broken;
  broken.add("general.architecture", "llama");
  broken.add_tensor("blk.0.attn_q.weight", {256, 4}, std::vector<float>(1024, NAN));
  broken.write(command.dir.path() / "broken.gguf");
  command.options.model = (command.dir.path() / "broken.gguf").string();
  CHECK_THROWS_WITH(command.run(), Contains("blk.0.attn_q.weight"));
  CHECK(std::filesystem::file_size(command.options.out) == 8);
  command.options.model = model;
  CHECK(command.run() == 0);
  CHECK(gguf::GgufFile::open(command.options.out).tensors().size() == 2);
  command.options.out = command.options.model;
  CHECK_THROWS_WITH(command.run(), Contains("is one of the files to be read"));
  command.options.out = command.dir.path().string();
  CHECK_THROWS_WITH(command.run(), Contains("is a directory"));
}

TEST_CASE("quantize takes a bare word for a model's name and says what makes one") {
  QuantizeCommand command;
  command.options.out = "smol";
  CHECK_THROWS_WITH(command.run(), Contains("dsctl create smol --quantize") &&
                                       Contains("FROM MODEL") && Contains("smol.gguf"));
}

TEST_CASE("quantize --dry-run prints types and sizes and writes nothing") {
  QuantizeCommand command;
  command.options.dry_run = true;
  CHECK(command.run() == 0);
  CHECK_THAT(command.console.printed, Contains("F32 -> Q4_K") && Contains("bits a weight") &&
                                          Contains("needs rows of a multiple of 256"));
  CHECK_FALSE(std::filesystem::exists(command.options.out));
}

TEST_CASE("quantize explains a wrong argument") {
  QuantizeCommand command;
  command.options.type = "Q9";
  CHECK_THROWS_WITH(command.run(), Contains("'Q9' is no type") && Contains("Q4_K_M"));
  command.options.type = "Q8_0";
  command.options.tensor_types = {"attn_q"};
  CHECK_THROWS_WITH(command.run(), Contains("expected PATTERN=TYPE"));
  command.options.tensor_types = {"attn_q=Q77"};
  CHECK_THROWS_WITH(command.run(), Contains("'Q77' is no tensor type"));
  command.options.tensor_types.clear();
  command.options.imatrix = command.options.model;
  CHECK_THROWS_WITH(command.run(), Contains("this is no importance matrix"));
}

}  // namespace
}  // namespace dsctl::commands
