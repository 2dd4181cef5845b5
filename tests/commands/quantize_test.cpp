#include "commands/quantize.h"

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
