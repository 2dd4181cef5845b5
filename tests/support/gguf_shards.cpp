#include "tests/support/gguf_shards.h"

#include <algorithm>
#include <random>

#include "tests/support/paths.h"

namespace dsctl::tests {

namespace fs = std::filesystem;

fs::path golden_shards() {
  return source_dir() / "tests/golden/gguf/split";
}

std::vector<fs::path> copy_shards(const std::string& prefix, const fs::path& directory) {
  fs::create_directories(directory);
  std::vector<fs::path> copies;
  for (const auto& entry : fs::directory_iterator(golden_shards())) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(prefix)) continue;
    fs::copy_file(entry.path(), directory / name);
    copies.push_back(directory / name);
  }
  std::sort(copies.begin(), copies.end());
  return copies;
}

std::vector<fs::path> write_shards(const fs::path& directory, const std::string& prefix,
                                   int n_tensors, int64_t tensor_bytes) {
  fs::create_directories(directory);
  std::mt19937 random(static_cast<unsigned>(n_tensors));
  gguf::GgufWriter writer;
  writer.add("general.architecture", "llama");
  writer.add_strings("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b"});
  for (int i = 0; i < n_tensors; ++i) {
    std::vector<std::byte> data(static_cast<size_t>(tensor_bytes + i % 3));
    for (std::byte& byte : data)
      byte = static_cast<std::byte>(random() & 0xff);
    const auto size = static_cast<int64_t>(data.size());
    writer.add_tensor("blk." + std::to_string(i) + ".weight", gguf::DType::I8, {size},
                      std::move(data));
  }
  gguf::SplitOptions options;
  options.n_tensors_per_shard = 2;
  return writer.write_split(directory, prefix, options);
}

std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace dsctl::tests
