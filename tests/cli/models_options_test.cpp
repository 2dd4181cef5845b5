// The flags of the commands that keep models.
#include "cli/options.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"
#include "tests/support/recording_console.h"

namespace dsctl::cli {
namespace {

using Catch::Contains;

struct Program {
  tests::TempDir dir;
  tests::RecordingConsole console;

  /// Parses and runs one command line as main does, without its catch-all.
  int run(const std::string& line) {
    Invocation invocation;
    invocation.console = &console;
    invocation.settings.models_dir = dir.path() / "models";
    CLI::App app;
    add_commands(app, invocation);
    app.parse(line);
    return invocation.run();
  }
};

TEST_CASE("list has an alias, a prefix and JSON") {
  Program program;
  CHECK(program.run("list") == 0);
  CHECK(program.run("ls some --json") == 0);
  CHECK(program.console.printed == "NAME    ID    SIZE    MODIFIED\n{\"models\":[]}\n");
}

TEST_CASE("show takes one form at a time") {
  Program program;
  CHECK_THROWS_AS(program.run("show x --json --template"), CLI::ParseError);
  CHECK_THROWS_AS(program.run("show x --system --license"), CLI::ParseError);
  CHECK_THROWS_AS(program.run("show"), CLI::ParseError);
  for (const char* flag : {"", "--modelfile", "--parameters", "--template", "--system", "--license",
                           "--json", "-v", "--json --metadata"}) {
    CHECK_THROWS_WITH(program.run(std::string("show x ") + flag), Contains("model 'x' not found"));
  }
}

TEST_CASE("create, cp and rm need their names") {
  Program program;
  CHECK_THROWS_AS(program.run("create"), CLI::ParseError);
  CHECK_THROWS_AS(program.run("cp a"), CLI::ParseError);
  CHECK_THROWS_AS(program.run("rm"), CLI::ParseError);
  CHECK_THROWS_WITH(program.run("cp a b"), Contains("model \"a:latest\" not found"));
  CHECK(program.run("rm a b") == 1);
  CHECK(program.console.notes == "error: model 'a' not found\nerror: model 'b' not found\n");
}

TEST_CASE("create reads standard input for -f -") {
  Program program;
  program.console.input = {"FROM ./nothing.gguf"};
  CHECK_THROWS_WITH(program.run("create x -f - --copy --json"),
                    Contains("stdin:1:1: FROM ./nothing.gguf: no such file"));
}

TEST_CASE("merge takes shards and then the file to write") {
  Program program;
  CHECK_THROWS_AS(program.run("merge"), CLI::ParseError);
  CHECK_THROWS_AS(program.run("merge a"), CLI::ParseError);
  CHECK_THROWS_WITH(program.run("merge a b " + program.dir.path().string() + "/out"),
                    Contains("a: can't be opened"));
  CHECK_THROWS_WITH(program.run("merge a --in-place --verify --force --dry-run --json b"),
                    Contains("a: can't be opened"));
}

TEST_CASE("split takes one rule, with sizes as people write them") {
  Program program;
  CHECK_THROWS_AS(program.run("split a b"), CLI::ParseError);
  CHECK_THROWS_AS(program.run("split a b --max-size 1G --max-tensors 2"), CLI::ParseError);
  CHECK_THROWS_WITH(program.run("split a b --max-size 0"), Contains("expected a size above 0"));
  CHECK_THROWS_AS(program.run("split a b --max-size -1"), CLI::ParseError);
  CHECK_THROWS_AS(program.run("split a b --max-size 5 apples"), CLI::ParseError);
  CHECK_THROWS_AS(program.run("split a b --max-tensors 0"), CLI::ParseError);
  for (const char* rule : {"--max-size 50G", "--max-size 48GiB", "--max-size 500M",
                           "--max-size 1000000", "--max-tensors 128 --no-tensor-first-split"}) {
    CHECK_THROWS_WITH(program.run(std::string("split a b ") + rule), Contains("can't be opened"));
  }
}

TEST_CASE("prune, verify, export and import parse their flags") {
  Program program;
  CHECK(program.run("prune --dry-run --older-than 30m") == 0);
  CHECK(program.run("verify --jobs 2 --delete") == 0);
  CHECK_THROWS_AS(program.run("verify --jobs 999"), CLI::ParseError);
  CHECK_THROWS_AS(program.run("export x"), CLI::ParseError);
  CHECK_THROWS_AS(program.run("export -o x"), CLI::ParseError);
  CHECK_THROWS_AS(program.run("import"), CLI::ParseError);
  CHECK_THROWS_WITH(program.run("export none -o " + (program.dir.path() / "x.tar").string()),
                    Contains("model 'none:latest' not found"));
  CHECK_THROWS_WITH(program.run("import " + (program.dir.path() / "x.tar").string() + " --json"),
                    Contains("No such file"));
}

}  // namespace
}  // namespace dsctl::cli
