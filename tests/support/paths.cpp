#include "tests/support/paths.h"

#include <cstdlib>

namespace dsctl::tests {

std::filesystem::path source_dir() {
  // A bundle is tested where the sources are not: it brings the data that the tests read.
  if (const char* dir = std::getenv("DSCTL_TEST_SOURCE")) return dir;
  return DSCTL_SOURCE_DIR;
}

std::filesystem::path shared_dir() {
  if (const char* dir = std::getenv("DSCTL_TEST_SHARED"); dir && std::filesystem::exists(dir)) {
    return dir;
  }
  const auto beside = source_dir().parent_path() / "shared";
  return std::filesystem::exists(beside) ? beside : std::filesystem::path();
}

}  // namespace dsctl::tests
