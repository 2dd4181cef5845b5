// Writes a model that the input describes, in pieces that it chooses, reads it back, splits it as
// it says and merges the shards: the bytes must be the same everywhere.
#include <stdlib.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "gguf/error.h"
#include "gguf/gguf_file.h"
#include "gguf/gguf_stream_writer.h"
#include "gguf/merge_in_place.h"
#include "gguf/shard_set.h"
#include "gguf/split_model.h"

namespace {

namespace fs = std::filesystem;
using dsctl::gguf::DType;
using dsctl::gguf::GgufFile;

void require(bool condition) {
  if (!condition) std::abort();
}

/// Takes numbers off the input; zeros when it is used up.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  uint8_t byte() {
    if (size_ == 0) return 0;
    --size_;
    return *data_++;
  }
  bool is_empty() const { return size_ == 0; }

 private:
  const uint8_t* data_;
  size_t size_;
};

struct Tensor {
  std::string name;
  DType dtype = DType::I8;
  std::vector<int64_t> dims;
  std::vector<std::byte> data;
};

std::vector<Tensor> take_tensors(Input& input) {
  constexpr DType kTypes[] = {DType::I8, DType::F32, DType::Q8_0, DType::Q4_K, DType::F16};
  std::vector<Tensor> tensors(input.byte() % 12);
  for (size_t i = 0; i < tensors.size(); ++i) {
    Tensor& tensor = tensors[i];
    tensor.name = "t" + std::to_string(i);
    tensor.dtype = kTypes[input.byte() % std::size(kTypes)];
    const auto& info = dsctl::gguf::dtype_info(tensor.dtype);
    tensor.dims = {(1 + input.byte() % 70) * int64_t{info.block_elems}};
    int64_t size = dsctl::gguf::row_size_bytes(tensor.dtype, tensor.dims[0]);
    for (int n = input.byte() % 4; n > 0; --n) {
      tensor.dims.push_back(1 + input.byte() % 3);
      size *= tensor.dims.back();
    }
    tensor.data.resize(static_cast<size_t>(size));
    uint32_t state = input.byte();
    for (std::byte& byte : tensor.data) {
      state = state * 1664525 + 1013904223;
      byte = static_cast<std::byte>(state >> 24);
    }
  }
  return tensors;
}

void write_model(const fs::path& path, const std::vector<Tensor>& tensors, Input& input) {
  dsctl::gguf::GgufWriter writer({3, uint32_t{1} << (input.byte() % 13)});
  writer.add("general.architecture", "llama");
  for (const Tensor& tensor : tensors)
    writer.declare_tensor(tensor.name, tensor.dtype, tensor.dims);
  dsctl::gguf::GgufStreamWriter stream(path, writer);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const std::span<const std::byte> data = tensors[i].data;
    const size_t step = 1 + data.size() * (1 + input.byte() % 16) / 16;
    size_t n_pieces = 0;
    for (size_t begin = 0; begin < data.size(); begin += step, ++n_pieces) {
      // Pieces that overlap are as good as pieces that touch.
      const size_t size = std::min(data.size() - begin, step + n_pieces);
      stream.write(i, static_cast<int64_t>(begin), data.subspan(begin, size));
    }
  }
  stream.finish();
}

void check(const GgufFile& file, const std::vector<Tensor>& tensors) {
  require(file.tensors().size() == tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto& found = file.tensors()[i];
    require(found.name == tensors[i].name && found.dtype == tensors[i].dtype);
    require(static_cast<size_t>(found.size_bytes) == tensors[i].data.size());
    require(std::memcmp(found.data, tensors[i].data.data(), tensors[i].data.size()) == 0);
  }
}

/// A directory in memory that goes with the object.
struct MemoryDir {
  fs::path path;
  MemoryDir() {
    std::string name = fs::exists("/dev/shm") ? "/dev/shm" : "/tmp";
    name += "/dsctl-fuzz-XXXXXX";
    require(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~MemoryDir() { fs::remove_all(path); }
  MemoryDir(const MemoryDir&) = delete;
  MemoryDir& operator=(const MemoryDir&) = delete;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  const MemoryDir dir;
  const std::vector<Tensor> tensors = take_tensors(input);
  write_model(dir.path / "m.gguf", tensors, input);
  const GgufFile model = GgufFile::open(dir.path / "m.gguf");
  check(model, tensors);

  dsctl::gguf::SplitRule rule;
  if (input.byte() % 2 == 0) {
    rule.n_tensors = 1 + input.byte() % 5;
  } else {
    rule.max_size_bytes = 1 + int64_t{input.byte()} * 256;
  }
  if (input.byte() % 2 == 0) rule.first_shard = dsctl::gguf::SplitOptions::FirstShard::MetadataOnly;
  fs::create_directory(dir.path / "d");
  const auto shards = dsctl::gguf::plan_split(model, dir.path / "d/s", rule);
  dsctl::gguf::write_split(model, shards, {});
  for (const auto& shard : shards)
    require(fs::file_size(shard.path) == static_cast<uintmax_t>(shard.layout.size_bytes));
  check(dsctl::gguf::open_shard_set({dir.path / "d"}), tensors);

  dsctl::gguf::merge(dsctl::gguf::open_shard_set({shards.back().path}), dir.path / "whole", {});
  // Each step syncs and opens files: a few tell as much as thousands.
  const int64_t step_bytes = 1 + model.size_bytes() / (1 + input.byte() % 8);
  dsctl::gguf::merge_in_place(dsctl::gguf::open_shard_set({shards.back().path}),
                              dir.path / "in-place",
                              {.verify = dsctl::gguf::Verify::kYes, .max_step_bytes = step_bytes});
  require(fs::is_empty(dir.path / "d"));
  const GgufFile whole = GgufFile::open(dir.path / "whole");
  const GgufFile in_place = GgufFile::open(dir.path / "in-place");
  check(whole, tensors);
  const auto a = whole.shards()[0].bytes();
  const auto b = in_place.shards()[0].bytes();
  require(std::equal(a.begin(), a.end(), b.begin(), b.end()));
  return 0;
}
