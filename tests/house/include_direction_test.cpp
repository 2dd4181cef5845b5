// The walls of the house: which folder may include which, and where foreign packages may appear.
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "tests/support/catch.h"
#include "tests/support/paths.h"

namespace {

namespace fs = std::filesystem;

struct Include {
  std::string file;  // from the repository root
  int line = 0;
  std::string target;
};

const std::set<std::string> kFolders{"cli", "commands", "engine", "gguf", "registry", "templates"};

const std::map<std::string, std::set<std::string>> kMayInclude{
    {"gguf", {"gguf"}},
    {"registry", {"registry"}},
    {"templates", {"templates"}},
    {"engine", {"engine", "gguf"}},
    {"commands", {"commands", "engine", "registry", "templates", "gguf"}},
    {"cli", {"cli", "commands"}},
};

/// A foreign header, by a pattern of its name, and the only path prefixes where it may be included.
struct ForeignRule {
  std::string package;
  std::regex header;
  std::vector<std::string> prefixes;
};

const std::vector<ForeignRule> kForeign{
    {"CUDA",
     std::regex("^(cuda|cublas|cooperative_groups|mma\\.h).*"),
     {"engine/cuda/", "engine/comm/"}},
    {"NCCL", std::regex("^nccl.*"), {"engine/cuda/", "engine/comm/"}},
    {"libcurl", std::regex("^curl/.*"), {"registry/"}},
    {"libgit2", std::regex("^git2.*"), {"registry/"}},
    {"CLI11", std::regex("^CLI/.*"), {"cli/"}},
    {"yaml-cpp", std::regex("^yaml-cpp/.*"), {"cli/"}},
    {"libedit", std::regex("^(histedit|editline).*"), {"cli/"}},
    {"Boost", std::regex("^boost/.*"), {"commands/serve/"}},
    {"PCRE2", std::regex("^pcre2.*"), {"engine/"}},
};

std::vector<Include> read_includes(const fs::path& root) {
  std::vector<Include> includes;
  const std::regex directive(R"re(^\s*#\s*include\s*[<"]([^>"]+)[>"])re");
  for (const std::string& folder : kFolders) {
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      const std::string extension = entry.path().extension().string();
      if (extension != ".cpp" && extension != ".h" && extension != ".cu" && extension != ".cuh") {
        continue;
      }
      std::ifstream in(entry.path());
      int number = 0;
      for (std::string line; std::getline(in, line);) {
        ++number;
        std::smatch match;
        if (line.find("include") == std::string::npos) continue;
        if (!std::regex_search(line, match, directive)) continue;
        includes.push_back({fs::relative(entry.path(), root).string(), number, match[1].str()});
      }
    }
  }
  return includes;
}

std::string first_part(const std::string& path) {
  return path.substr(0, path.find('/'));
}

bool starts_with_any(const std::string& text, const std::vector<std::string>& prefixes) {
  for (const std::string& prefix : prefixes) {
    if (text.rfind(prefix, 0) == 0) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("Folders include only what the design allows") {
  const auto includes = read_includes(dsctl::tests::source_dir());
  REQUIRE(includes.size() > 50);  // a scan that finds nothing proves nothing
  for (const Include& include : includes) {
    const std::string to = first_part(include.target);
    if (!kFolders.count(to) || include.target.find('/') == std::string::npos) continue;
    const std::string from = first_part(include.file);
    INFO(include.file << ":" << include.line << " includes " << include.target);
    CHECK(kMayInclude.at(from).count(to) == 1);
  }
}

TEST_CASE("Foreign packages stay in their folder") {
  for (const Include& include : read_includes(dsctl::tests::source_dir())) {
    for (const ForeignRule& rule : kForeign) {
      if (!std::regex_match(include.target, rule.header)) continue;
      INFO(include.file << ":" << include.line << " includes " << include.target << " ("
                        << rule.package << ")");
      CHECK(starts_with_any(include.file, rule.prefixes));
    }
  }
}

TEST_CASE("Headers of ours are included from the repository root") {
  const fs::path root = dsctl::tests::source_dir();
  for (const Include& include : read_includes(root)) {
    if (include.target.find('/') != std::string::npos) continue;
    const fs::path beside = root / fs::path(include.file).parent_path() / include.target;
    INFO(include.file << ":" << include.line << " includes " << include.target);
    CHECK_FALSE(fs::exists(beside));
  }
}

TEST_CASE("The top level holds only what the design names") {
  const std::set<std::string> allowed{"CMakeLists.txt",
                                      "CMakePresets.json",
                                      "README.md",
                                      "README.zh-CN.md",
                                      "CONTRIBUTING.md",
                                      "LICENSE",
                                      "dev",
                                      "cli",
                                      "commands",
                                      "engine",
                                      "gguf",
                                      "registry",
                                      "templates",
                                      "tests",
                                      "packaging",
                                      "build",
                                      "dist"};
  for (const auto& entry : fs::directory_iterator(dsctl::tests::source_dir())) {
    const std::string name = entry.path().filename().string();
    if (name.front() == '.') continue;
    INFO(name);
    CHECK(allowed.count(name) == 1);
  }
}
