#include "registry/modelfile.h"

#include <nlohmann/json.hpp>
#include <random>

#include "registry/error.h"
#include "tests/support/catch.h"

namespace dsctl::registry {
namespace {

using Catch::Contains;
using Catch::Matchers::StartsWith;

std::string system_of(const std::string& text) {
  return Modelfile::parse("FROM x\n" + text).last(Instruction::kSystem).value_or("<none>");
}

TEST_CASE("Modelfile reads the first user's as written") {
  const Modelfile modelfile = Modelfile::parse(
      "FROM /data/modlescope/DeepSeek-R1-GGUF/DeepSeek-R1-Q4_K_M/DeepSeek-R1-Q4_K_M.gguf\n"
      "PARAMETER num_gpu 16\n"
      "PARAMETER num_ctx 8192\n"
      "PARAMETER temperature 0.6\n"
      "TEMPLATE \"<|User|>{{ .System }} {{ .Prompt }}<|Assistant|>\"\n");
  CHECK(modelfile.values(Instruction::kFrom) ==
        std::vector<std::string>{
            "/data/modlescope/DeepSeek-R1-GGUF/DeepSeek-R1-Q4_K_M/DeepSeek-R1-Q4_K_M.gguf"});
  CHECK(modelfile.parameters_json() == R"({"num_ctx":8192,"num_gpu":16,"temperature":0.6})");
  CHECK(modelfile.last(Instruction::kTemplate) ==
        "<|User|>{{ .System }} {{ .Prompt }}<|Assistant|>");
  CHECK(modelfile.warnings().empty());
}

TEST_CASE("Modelfile reads bare, quoted and triple-quoted values") {
  CHECK(system_of("SYSTEM You are   Mario.  \n") == "You are   Mario.");
  CHECK(system_of("SYSTEM \"  keep  \"\n") == "  keep  ");
  CHECK(system_of("SYSTEM \"\"\"a\n\nb \"c\" d\"\"\"\n") == "a\n\nb \"c\" d");
  CHECK(system_of("SYSTEM \"a \"b\" c\"\n") == "a \"b\" c");
  CHECK(system_of("SYSTEM \"two\nlines\"\n") == "two\nlines");
  CHECK(system_of("SYSTEM 'single'\n") == "'single'");
  CHECK(system_of("SYSTEM no \\n escapes\n") == "no \\n escapes");
  CHECK(system_of("SYSTEM a # is text\n") == "a # is text");
  CHECK(system_of("SYSTEM \"\"\n").empty());
  CHECK(system_of("SYSTEM \"\"\"\"\"\"\n").empty());
  CHECK(system_of("SYSTEM \"\"\"\"x\"\"\"\n") == "\"x");
  CHECK(system_of("SYSTEM \"\"\"a\"\"\" b\n\"\"\"\n") == "a\"\"\" b\n");
  CHECK(system_of("SYSTEM last line without newline") == "last line without newline");
  CHECK(system_of("system\t tab\t\n") == "tab");
  CHECK(system_of("SYSTEM one\nSYSTEM two\n") == "two");
  CHECK(system_of("SYSTEM a\x01\x7F\xC2\x85"
                  "b\n") == "ab");
  CHECK(system_of("SYSTEM \xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x92\xBB\n") ==
        "\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x92\xBB");
}

TEST_CASE("Modelfile accepts comments, blank lines, CRLF and any case of instructions") {
  const Modelfile modelfile = Modelfile::parse(
      "\r\n# FROM ignored\r\n  # indented\r\n\t from  x \r\nParameter stop a\r\n"
      "PARAMETER stop \"b c\"\r\nmessage user hello\r\nMESSAGE assistant \"\"\"a\r\nb\"\"\"\r\n"
      "license A\nLICENSE B\nADAPTER ./a.gguf\nDRAFT d\nRENDERER r\nPARSER p\nREQUIRES v0.14.0\n");
  CHECK(modelfile.values(Instruction::kFrom) == std::vector<std::string>{"x"});
  CHECK(modelfile.parameters_json() == R"({"stop":["a","b c"]})");
  CHECK(modelfile.messages() ==
        std::vector<StoredMessage>{{"user", "hello"}, {"assistant", "a\r\nb"}});
  CHECK(modelfile.values(Instruction::kLicense) == std::vector<std::string>{"A", "B"});
  CHECK(modelfile.last(Instruction::kRequires) == "v0.14.0");
  CHECK(modelfile.commands()[0].line == 4);
  CHECK(modelfile.commands()[0].column == 3);
  CHECK(modelfile.commands()[0].value_column == 9);
}

TEST_CASE("Modelfile decodes byte order marks") {
  const std::u16string text = u"FROM x\nSYSTEM \u4f60\u597d \U0001F600\n";
  std::string little = "\xFF\xFE";
  std::string big = "\xFE\xFF";
  for (const char16_t unit : text) {
    little += {static_cast<char>(unit & 0xFF), static_cast<char>(unit >> 8)};
    big += {static_cast<char>(unit >> 8), static_cast<char>(unit & 0xFF)};
  }
  const std::string expected = "\xE4\xBD\xA0\xE5\xA5\xBD \xF0\x9F\x98\x80";
  CHECK(Modelfile::parse(little).last(Instruction::kSystem) == expected);
  CHECK(Modelfile::parse(big).last(Instruction::kSystem) == expected);
  CHECK(Modelfile::parse("\xEF\xBB\xBF"
                         "FROM x\nSYSTEM " +
                         expected + "\n")
            .last(Instruction::kSystem) == expected);
}

TEST_CASE("Modelfile replaces broken UTF-8 and says so once") {
  const Modelfile modelfile = Modelfile::parse("FROM x\nLICENSE \xA9 2024 \xE4\xBD\n");
  CHECK(modelfile.last(Instruction::kLicense) == "\xEF\xBF\xBD 2024 \xEF\xBF\xBD\xEF\xBF\xBD");
  REQUIRE(modelfile.warnings().size() == 1);
  CHECK_THAT(modelfile.warnings()[0], StartsWith("Modelfile:2:9: "));
}

TEST_CASE("Modelfile errors carry line and column") {
  struct Case {
    const char* text;
    const char* error;
  };
  for (const Case& c : {
           Case{"", "no FROM line"},
           Case{"# FROM x\n", "no FROM line"},
           Case{"SYSTEM x\n", "no FROM line"},
           Case{"FROM x\n\nFORM y\n",
                "Modelfile:3:1: 'FORM' is no instruction, expected one of FROM"},
           Case{"FROM x\nPARAMETER num_ctxx 5\n",
                "Modelfile:2:11: unknown parameter 'num_ctxx', expected one of num_ctx, num_batch"},
           Case{"FROM x\nPARAMETER NUM_CTX 5\n", "Modelfile:2:11: unknown parameter 'NUM_CTX'"},
           Case{"FROM x\nPARAMETER num_ctx 8k\n",
                "Modelfile:2:19: num_ctx: \"8k\", expected a whole number"},
           Case{"FROM x\nPARAMETER num_ctx 1.5\n",
                "2:19: num_ctx: \"1.5\", expected a whole number"},
           Case{"FROM x\nPARAMETER num_ctx 99999999999999999999\n", "expected a whole number"},
           Case{"FROM x\nPARAMETER temperature warm\n",
                "2:23: temperature: \"warm\", expected a number"},
           Case{"FROM x\nPARAMETER temperature nan\n", "expected a number"},
           Case{"FROM x\nPARAMETER top_p inf\n", "expected a number"},
           Case{"FROM x\nPARAMETER use_mmap yes\n",
                "2:20: use_mmap: \"yes\", expected true or false"},
           Case{"FROM x\nPARAMETER num_ctx\n", "2:18: PARAMETER num_ctx: expected a value"},
           Case{"FROM x\nPARAMETER\n", "2:10: PARAMETER: expected a name and a value"},
           Case{"FROM x\nMESSAGE robot hi\n", "2:9: message role must be one of \"system\""},
           Case{"FROM x\nMESSAGE user\n", "2:13: MESSAGE user: expected a value"},
           Case{"FROM\n", "Modelfile:1:5: FROM: expected a value"},
           Case{"FROM", "Modelfile:1:5: FROM: expected a value"},
           Case{"FROM \"\"\n", "1:6: FROM: the value is empty"},
           Case{"FROM x\nSYSTEM \"open\nFROM y\n",
                "Modelfile:2:8: SYSTEM: the quote is not closed"},
           Case{"FROM x\nSYSTEM \"\"\"open\"\"\n", "2:8: SYSTEM: the quote is not closed"},
           Case{"FROM x\nREQUIRES soon\n", "2:10: REQUIRES: \"soon\" is no version"},
           Case{"GGUF\x03", "1:1: is a GGUF file, expected a Modelfile"},
           Case{"FROM x\n\xE4\xBD\xA0\xE5\xA5\xBD y\n",
                "2:1: '\xE4\xBD\xA0\xE5\xA5\xBD' is no instruction"},
           Case{"FROM x\nSYSTEM \xE4\xBD\xA0\nMESSAGE \xE4\xBD\xA0 x\n", "3:9: message role"},
       }) {
    CAPTURE(c.text);
    CHECK_THROWS_WITH(Modelfile::parse(c.text), Contains(c.error));
  }
  CHECK_THROWS_WITH(Modelfile::parse(std::string("F\0R\0O\0M\0", 8)), Contains("1:2: a zero byte"));
  CHECK_THROWS_WITH(Modelfile::parse("FROM x\nX y\n", "-"), StartsWith("-:2:1: "));
  CHECK_THROWS_WITH(Modelfile::parse(std::string(Modelfile::kMaxBytes + 1, '#')),
                    Contains("at most"));
  std::string many = "FROM x\n";
  for (size_t i = 0; i < Modelfile::kMaxCommands; ++i)
    many += "LICENSE x\n";
  CHECK_THROWS_WITH(Modelfile::parse(many), Contains("more than 10000 instructions"));
}

TEST_CASE("Modelfile versions are those of Go's semver") {
  for (const char* good : {"1", "v1.2", "0.14.0", "v1.2.3-rc.1+build"}) {
    CHECK_NOTHROW(Modelfile::parse(std::string("FROM x\nREQUIRES ") + good + "\n"));
  }
  for (const char* bad : {"v", "1.", "01.2.3", "1.2.3.4", "1.2-rc", "1.2.3-", "latest"}) {
    CHECK_THROWS(Modelfile::parse(std::string("FROM x\nREQUIRES ") + bad + "\n"));
  }
}

TEST_CASE("Modelfile warns of parameters without effect and of repeated ones") {
  const Modelfile modelfile = Modelfile::parse(
      "FROM x\nPARAMETER mirostat 1\nPARAMETER top_k 1\nPARAMETER top_k 2\nPARAMETER use_mmap F\n"
      "PARAMETER seed -1\nPARAMETER min_p 1e-2\nPARAMETER stop 7\n");
  CHECK(modelfile.parameters_json() ==
        R"({"min_p":0.01,"seed":-1,"stop":["7"],"top_k":2,"use_mmap":false})");
  REQUIRE(modelfile.warnings().size() == 2);
  CHECK_THAT(modelfile.warnings()[0], StartsWith("Modelfile:2:11: mirostat"));
  CHECK_THAT(modelfile.warnings()[1], StartsWith("Modelfile:4:11: top_k"));
}

TEST_CASE("Modelfile takes time linear in long runs of newlines inside a quote") {
  const std::string text = "FROM x\nSYSTEM \"" + std::string(4 << 20, '\n') + "\"\n";
  CHECK(Modelfile::parse(text).last(Instruction::kSystem)->size() == 4 << 20);
}

TEST_CASE("Modelfile printed and parsed again is the same") {
  std::mt19937 random(7);
  const std::vector<std::string> pieces = {
      "\"", "\"\"\"",  "\n",     "\r\n",         " ", "\t",  "a", "# b",
      "\\", "{{ x }}", "FROM y", "\xE4\xBD\xA0", "'", "\xFF"};
  const std::vector<std::string> openers = {"", "\"", "\"\"\""};
  int n_parsed = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string text = "FROM x\n";
    for (const char* instruction : {"SYSTEM ", "LICENSE ", "MESSAGE user ", "PARAMETER stop "}) {
      const std::string& quote = openers[random() % openers.size()];
      text += instruction + quote;
      for (size_t n = random() % 6; n > 0; --n)
        text += pieces[random() % pieces.size()];
      text += quote + "\n";
    }
    std::optional<Modelfile> first;
    try {
      first = Modelfile::parse(text);
    } catch (const Error&) {
      continue;
    }
    ++n_parsed;
    const std::string printed = first->print();
    const Modelfile second = Modelfile::parse(printed);
    CAPTURE(text, printed);
    REQUIRE(second.commands().size() == first->commands().size());
    for (size_t i = 0; i < second.commands().size(); ++i) {
      REQUIRE(second.commands()[i].instruction == first->commands()[i].instruction);
      REQUIRE(second.commands()[i].key == first->commands()[i].key);
      REQUIRE(second.commands()[i].value == first->commands()[i].value);
    }
    REQUIRE(second.print() == printed);
  }
  CHECK(n_parsed > 2000);
}

}  // namespace
}  // namespace dsctl::registry
