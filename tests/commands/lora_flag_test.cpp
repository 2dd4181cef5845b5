#include "commands/lora_flag.h"

#include <fstream>

#include "commands/error.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"

namespace dsctl::commands {
namespace {

using Catch::Contains;

TEST_CASE("--lora takes a file, or a file and a scale") {
  const tests::TempDir dir;
  const std::string plain = (dir.path() / "a.gguf").string();
  const std::string odd = (dir.path() / "b=2").string();
  std::ofstream(plain) << "x";
  std::ofstream(odd) << "x";
  const auto adapters = parse_loras({plain, plain + "=0.25", plain + "=-1", odd, odd + "=3"});
  REQUIRE(adapters.size() == 5);
  CHECK(adapters[0].path == plain);
  CHECK(adapters[0].scale == 1.0f);
  CHECK(adapters[1].path == plain);
  CHECK(adapters[1].scale == 0.25f);
  CHECK(adapters[2].scale == -1.0f);
  CHECK(adapters[3].path == odd);
  CHECK(adapters[3].scale == 1.0f);
  CHECK(adapters[4].path == odd);
  CHECK(adapters[4].scale == 3.0f);
}

TEST_CASE("--lora that can't be is refused") {
  const tests::TempDir dir;
  const std::string plain = (dir.path() / "a.gguf").string();
  std::ofstream(plain) << "x";
  CHECK_THROWS_WITH(parse_loras({plain + "2"}), Contains("no such file"));
  CHECK_THROWS_WITH(parse_loras({plain + "2=1"}), Contains("no such file"));
  for (const char* scale : {"=", "=x", "=1x", "=nan", "=inf", "= 1"})
    CHECK_THROWS_WITH(parse_loras({plain + scale}), Contains("expected a number"));
  CHECK_THROWS_WITH(parse_loras({dir.path().string()}), Contains("no such file"));
}

}  // namespace
}  // namespace dsctl::commands
