// Where tests find things: the source tree, the shared test data (when it is there) and a directory
// of their own that goes away with the test.
#pragma once

#include <filesystem>
#include <random>
#include <string>

namespace dsctl::tests {

/// The root of the source tree, or the folder that DSCTL_TEST_SOURCE names.
std::filesystem::path source_dir();

/// The folder with the specification's test vectors, from DSCTL_TEST_SHARED or beside the source
/// tree; empty when neither is there. Tests that need it say so and pass without it.
std::filesystem::path shared_dir();

/// A directory under the system's temporary directory, removed when the object dies.
class TempDir {
 public:
  TempDir() {
    std::random_device random;
    path_ = std::filesystem::temp_directory_path() /
            ("dsctl-test-" + std::to_string(random()) + std::to_string(random()));
    std::filesystem::create_directories(path_);
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace dsctl::tests
