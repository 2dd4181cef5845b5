#include "commands/tokenize.h"

#include <sstream>

#include "commands/error.h"
#include "gguf/gguf_writer.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"

namespace dsctl::commands {

namespace {

class PrintRecorder : public Console {
 public:
  void print(std::string_view text) override { printed += text; }
  void note(std::string_view) override {}
  void progress(std::string_view, int64_t, int64_t) override {}
  void finish_progress() override {}
  std::optional<std::string> read_line(std::string_view) override { return {}; }
  bool stdin_is_terminal() const override { return false; }
  bool stdout_is_terminal() const override { return false; }
  int width() const override { return 80; }
  bool interrupted() const override { return false; }
  void clear_interrupt() override {}

  std::string printed;
};

/// A vocabulary that asks for BOS (5): a b c ab é's first byte, <s> (control).
class TokenizeCommand {
 public:
  TokenizeCommand() {
    gguf::GgufWriter writer;
    writer.add("general.architecture", "llama");
    writer.add("tokenizer.ggml.model", "gpt2");
    writer.add("tokenizer.ggml.pre", "gpt-2");
    writer.add_strings("tokenizer.ggml.tokens",
                       std::vector<std::string>{"a", "b", "c", "ab", "Ã", "<s>"});
    writer.add_array("tokenizer.ggml.token_type", std::vector<int32_t>{1, 1, 1, 1, 1, 3});
    writer.add_strings("tokenizer.ggml.merges", std::vector<std::string>{"a b"});
    writer.add("tokenizer.ggml.bos_token_id", uint32_t{5});
    writer.add("tokenizer.ggml.add_bos_token", true);
    writer.write(dir_.path() / "model.gguf");
    options.model = (dir_.path() / "model.gguf").string();
  }

  /// What the command prints; `input` is its standard input.
  std::string run(const std::string& input = "") {
    PrintRecorder console;
    std::istringstream stream(input);
    const int exit_code =
        tokenize({.models_dir = dir_.path() / "models"}, options, stream, console);
    CHECK(exit_code == 0);
    return console.printed;
  }

  TokenizeOptions options;

 private:
  tests::TempDir dir_;
};

using Output = TokenizeOptions::Output;
using Bos = TokenizeOptions::Bos;

}  // namespace

TEST_CASE("tokenize prints ids on one line") {
  TokenizeCommand command;
  command.options.text = "abc<s>a";
  CHECK(command.run() == "5 3 2 5 0\n");
}

TEST_CASE("tokenize reads standard input when there is no text, newline and all") {
  TokenizeCommand command;
  CHECK(command.run("cab") == "5 2 3\n");
  command.options.text = "";
  CHECK(command.run("not read") == "5\n");
}

TEST_CASE("tokenize counts, and prints JSON with the pieces") {
  TokenizeCommand command;
  command.options.text = "ab\xC3";
  command.options.output = Output::kCount;
  CHECK(command.run() == "3\n");
  command.options.output = Output::kJson;
  CHECK(command.run() == R"([{"id":5,"piece":"<s>"},{"id":3,"piece":"ab"},{"id":4,"piece":")"
                         "\uFFFD"
                         R"("}])"
                         "\n");
}

TEST_CASE("tokenize takes special tokens for text, and leaves BOS out, when told") {
  TokenizeCommand command;
  command.options.text = "<s>c";
  CHECK(command.run() == "5 2\n");
  command.options.bos = Bos::kNever;
  command.options.text = "c";
  CHECK(command.run() == "2\n");
  command.options.bos = Bos::kAlways;
  CHECK(command.run() == "5 2\n");
  command.options.bos = Bos::kNever;
  command.options.parse_special = false;
  command.options.text = "<s>c";
  CHECK(command.run() == "2\n");  // the vocabulary has no "<", "s" and ">"
}

TEST_CASE("tokenize --decode prints the text of ids and names a bad one") {
  TokenizeCommand command;
  command.options.decode = "[3, 2]\n5";
  CHECK(command.run() == "abc<s>\n");
  for (const char* bad : {"6", "-1", "x", "3x", "99999999999"}) {
    command.options.decode = bad;
    CHECK_THROWS_WITH(command.run(), Catch::Contains(std::string("--decode: '") + bad +
                                                     "', expected token ids below 6"));
  }
}

TEST_CASE("tokenize says when there is no such model") {
  TokenizeCommand command;
  command.options.model = "nowhere:7b";
  command.options.text = "a";
  CHECK_THROWS_WITH(command.run(), "model 'nowhere:7b' not found");
}

}  // namespace dsctl::commands
