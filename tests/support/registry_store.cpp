#include "tests/support/registry_store.h"

#include <fstream>
#include <sstream>
#include <stdexcept>

namespace dsctl::tests {

namespace fs = std::filesystem;

void write_file(const fs::path& path, const std::string& content) {
  fs::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << content;
  if (!file.flush()) throw std::runtime_error("can't write " + path.string());
}

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("can't read " + path.string());
  std::ostringstream content;
  content << file.rdbuf();
  return content.str();
}

std::vector<std::string> leftovers(const fs::path& root) {
  std::vector<std::string> names;
  if (!fs::exists(root / "blobs")) return names;
  for (const auto& entry : fs::directory_iterator(root / "blobs")) {
    const std::string name = entry.path().filename().string();
    if (!registry::Digest::parse(name)) names.push_back(name);
  }
  return names;
}

size_t n_blobs(const fs::path& root) {
  size_t n = 0;
  for (const auto& entry : fs::directory_iterator(root / "blobs")) {
    n += registry::Digest::parse(entry.path().filename().string()).has_value() ? 1 : 0;
  }
  return n;
}

registry::CreateSpec spec_of(const std::vector<fs::path>& files) {
  registry::CreateSpec spec;
  for (const fs::path& file : files) {
    registry::WeightSource weight;
    weight.source = file;
    if (files.size() > 1) weight.name = file.filename().string();
    spec.weights.push_back(weight);
  }
  spec.config.emplace();
  spec.config->model_format = "gguf";
  spec.config->model_family = "llama";
  return spec;
}

void check_store(const fs::path& root) {
  const registry::Registry registry(root);
  const registry::ModelList list = registry.list();
  if (!list.problems.empty()) throw std::runtime_error(list.problems[0]);
  for (const registry::ModelEntry& entry : list.models) {
    if (!registry.find(entry.name)) throw std::runtime_error("lost " + entry.name.short_form());
  }
  if (!fs::exists(root / "blobs")) return;
  for (const auto& entry : fs::directory_iterator(root / "blobs")) {
    const auto digest = registry::Digest::parse(entry.path().filename().string());
    if (digest && registry::Digest::of(read_file(entry.path())) != *digest) {
      throw std::runtime_error(entry.path().string() + ": is not what its name says");
    }
  }
}

}  // namespace dsctl::tests
