#include "engine/dummy_model.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/error.h"
#include "engine/kv_cache.h"
#include "engine/model_footprint.h"
#include "gguf/gguf_writer.h"
#include "gguf/random_block.h"

namespace dsctl::engine {
namespace {

using gguf::DType;

/// As large as the weights of models are.
constexpr float kStdDev = 0.02f;
constexpr int64_t kPoolBlocks = 512;

using Bytes = std::vector<std::byte>;
/// Random blocks of a type, of which tensors are put together.
using Pools = std::map<DType, Bytes>;

/// An anonymous file in memory.
class MemoryFile {
 public:
  explicit MemoryFile(int64_t size_bytes)
      : fd_(::memfd_create("dummy", MFD_CLOEXEC)), size_(static_cast<size_t>(size_bytes)) {
    if (fd_ < 0) fail();
    if (::ftruncate(fd_, size_bytes) != 0) fail();
    void* start = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
    if (start == MAP_FAILED) fail();
    start_ = static_cast<std::byte*>(start);
  }
  ~MemoryFile() {
    if (start_ != nullptr) ::munmap(start_, size_);
    if (fd_ >= 0) ::close(fd_);
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::byte* data() { return start_; }
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  [[noreturn]] void fail() {
    const std::string reason = std::strerror(errno);
    if (fd_ >= 0) ::close(fd_);
    throw Error("no memory for " + std::to_string(size_) + " bytes of random weights: " + reason);
  }
  int fd_ = -1;
  size_t size_ = 0;
  std::byte* start_ = nullptr;
};

bool is_kept(const gguf::TensorInfo& tensor, int n_layers) {
  return n_layers == 0 || layer_of(tensor.name) < n_layers;
}

/// Keys and tensors of the model to be made; those of a split mean nothing any more.
gguf::GgufWriter make_header(const gguf::GgufFile& header, int n_layers) {
  gguf::GgufWriter writer;
  const std::string count_key = std::string(header.architecture()) + ".block_count";
  const auto n_all = static_cast<int>(std::min<uint64_t>(header.get_uint(count_key), 1 << 20));
  if (n_layers > n_all) {
    throw Error("layers: " + std::to_string(n_layers) + ", the model has " + std::to_string(n_all));
  }
  for (const gguf::KeyValue& entry : header.metadata()) {
    if (entry.key.starts_with("split.") || entry.key == "general.alignment") continue;
    if (entry.key == count_key && n_layers > 0) {
      writer.add(entry.key, static_cast<uint32_t>(n_layers));
    } else {
      writer.add_value(entry.key, entry.value);
    }
  }
  for (const gguf::TensorInfo& tensor : header.tensors()) {
    if (!is_kept(tensor, n_layers)) continue;
    writer.declare_tensor(tensor.name, tensor.dtype,
                          std::span(tensor.dims.data(), static_cast<size_t>(tensor.n_dims)));
  }
  return writer;
}

Pools make_pools(const std::vector<const gguf::TensorInfo*>& tensors, uint64_t seed) {
  Pools pools;
  for (const gguf::TensorInfo* tensor : tensors) {
    Bytes& pool = pools[tensor->dtype];
    if (!pool.empty()) continue;
    const int block_bytes = gguf::dtype_info(tensor->dtype).block_bytes;
    pool.resize(static_cast<size_t>(kPoolBlocks * block_bytes));
    std::mt19937_64 random(seed + static_cast<uint64_t>(tensor->dtype));
    for (int64_t i = 0; i < kPoolBlocks; ++i)
      gguf::random_block(tensor->dtype, kStdDev, pool.data() + i * block_bytes, random);
  }
  return pools;
}

/// Scales that a model multiplies with, near one; else the network dies out or blows up.
bool is_scale(const gguf::TensorInfo& tensor) {
  return tensor.dtype == DType::F32 && tensor.n_dims == 1 &&
         (tensor.name.ends_with("norm.weight") || tensor.name.starts_with("rope_f"));
}

void fill(const gguf::TensorInfo& tensor, const Pools& pools, uint64_t seed, std::byte* out) {
  std::mt19937_64 random(seed);
  if (is_scale(tensor)) {
    std::uniform_real_distribution<float> near_one(0.9f, 1.1f);
    for (int64_t i = 0; i < tensor.n_elems(); ++i) {
      const float value = tensor.name.starts_with("rope_f") ? 1.0f : near_one(random);
      std::memcpy(out + i * 4, &value, sizeof(value));
    }
    return;
  }
  const Bytes& pool = pools.at(tensor.dtype);
  const int64_t block_bytes = gguf::dtype_info(tensor.dtype).block_bytes;
  for (int64_t done = 0; done < tensor.size_bytes;) {
    const auto first = static_cast<int64_t>(random() % (kPoolBlocks / 2)) * block_bytes;
    const int64_t n = std::min(tensor.size_bytes - done, static_cast<int64_t>(pool.size()) - first);
    std::memcpy(out + done, pool.data() + first, static_cast<size_t>(n));
    done += n;
  }
}

void check_memory(int64_t size_bytes) {
  const int64_t free_bytes = free_host_bytes();
  const int64_t needed = 2 * size_bytes;
  if (needed <= free_bytes) return;
  throw Error("random weights of " + std::to_string(size_bytes) + " bytes need " +
              std::to_string(needed) +
              " bytes of memory (once as the file, once as the kernels' "
              "own), but " +
              std::to_string(free_bytes) + " are free: use fewer layers");
}

}  // namespace

gguf::GgufFile make_dummy_model(const gguf::GgufFile& header, const DummyOptions& options) {
  const gguf::GgufLayout layout = make_header(header, options.n_layers).layout();
  check_memory(layout.size_bytes);
  std::vector<const gguf::TensorInfo*> tensors;
  for (const gguf::TensorInfo& tensor : header.tensors()) {
    if (is_kept(tensor, options.n_layers)) tensors.push_back(&tensor);
  }
  const Pools pools = make_pools(tensors, options.seed);
  MemoryFile file(layout.size_bytes);
  std::memcpy(file.data(), layout.header.data(), layout.header.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < tensors.size(); i = next++)
      fill(*tensors[i], pools, options.seed * 1000003 + i,
           file.data() + layout.tensors[i].offset_bytes);
  };
  {
    std::vector<std::jthread> threads;
    for (int i = 1; i < options.n_threads; ++i)
      threads.emplace_back(work);
    work();
  }
  // The mapping outlives the descriptor.
  return gguf::GgufFile::open(file.path());
}

}  // namespace dsctl::engine
