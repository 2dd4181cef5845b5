// GgufFile on arbitrary bytes: it throws Error or everything it offers can be read.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "gguf/error.h"
#include "gguf/gguf_file.h"
#include "gguf/quants/all.h"

namespace {

using dsctl::gguf::ArrayValue;
using dsctl::gguf::GgufFile;
using dsctl::gguf::KeyValue;
using dsctl::gguf::TensorInfo;

constexpr int64_t kMaxElems = 4096;  // dequantised of each tensor
constexpr size_t kMaxTensors = 64;   // read of each file: a fuzzer wants many files

void require(bool condition) {
  if (!condition) std::abort();
}

/// Touches every byte of `text`, so that a bad view is seen.
size_t read_all(std::string_view text) {
  size_t sum = 0;
  for (const char c : text)
    sum += static_cast<unsigned char>(c);
  return sum;
}

void read_metadata(const GgufFile& file) {
  volatile size_t sum = 0;
  for (const KeyValue& entry : file.metadata()) {
    sum = sum + read_all(entry.key);
    require(file.find(entry.key) == &entry.value);
    if (const auto* text = std::get_if<std::string_view>(&entry.value.data)) {
      sum = sum + read_all(*text);
    }
    const auto* array = std::get_if<ArrayValue>(&entry.value.data);
    if (!array) continue;
    const auto* texts = std::get_if<std::vector<std::string_view>>(&array->elements);
    if (!texts) continue;
    for (const std::string_view text : *texts)
      sum = sum + read_all(text);
  }
}

void read_tensors(const GgufFile& file) {
  std::vector<float> values;
  for (const TensorInfo& tensor :
       file.tensors().first(std::min(kMaxTensors, file.tensors().size()))) {
    require(file.find_tensor(tensor.name) == &tensor);
    const auto bytes = file.shards()[static_cast<size_t>(tensor.shard_idx)].bytes();
    require(tensor.data == bytes.data() + tensor.offset_bytes);
    require(tensor.offset_bytes + tensor.size_bytes <= static_cast<int64_t>(bytes.size()));
    require(tensor.size_bytes > 0 && tensor.n_elems() > 0);
    const int block = dsctl::gguf::dtype_info(tensor.dtype).block_elems;
    const int64_t n_elems = std::min(tensor.dims[0], kMaxElems / block * block);
    values.resize(static_cast<size_t>(n_elems));
    dsctl::gguf::dequantize_row(tensor.dtype, tensor.data, values.data(), n_elems);
    // The last row too: its end is the end of what was checked.
    const int64_t row_bytes = tensor.size_bytes / tensor.n_rows();
    dsctl::gguf::dequantize_row(tensor.dtype, tensor.data + tensor.size_bytes - row_bytes,
                                values.data(), n_elems);
  }
}

/// A file that exists in memory only, named under /proc.
class MemoryFile {
 public:
  MemoryFile(const uint8_t* data, size_t size) : fd_(::memfd_create("fuzz", MFD_CLOEXEC)) {
    require(fd_ >= 0 && ::write(fd_, data, size) == static_cast<ssize_t>(size));
  }
  ~MemoryFile() { ::close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  int fd_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const MemoryFile memory(data, size);
  try {
    const GgufFile file = GgufFile::open(memory.path());
    read_metadata(file);
    read_tensors(file);
  } catch (const dsctl::gguf::Error& error) {
    require(error.what()[0] != '\0');
  }
  return 0;
}
