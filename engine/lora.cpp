#include "engine/lora.h"

#include <algorithm>
#include <cmath>

#include "engine/error.h"

namespace dsctl::engine {
namespace {

constexpr int64_t kMaxRank = 4096;

std::string path_of(const gguf::GgufFile& file) {
  return file.shards()[0].path().string();
}

const gguf::TensorInfo& find(const gguf::GgufFile& file, const std::string& name, int64_t n_cols,
                             int64_t n_rows) {
  const gguf::TensorInfo* tensor = file.find_tensor(name);
  if (tensor == nullptr) throw Error(path_of(file) + ": " + name + ": tensor missing");
  const auto& dims = tensor->dims;
  if (dims[0] != n_cols || dims[1] != n_rows || dims[2] != 1 || dims[3] != 1) {
    throw Error(path_of(file) + ": " + name + ": shape [" + std::to_string(dims[0]) + ", " +
                std::to_string(dims[1]) + "], expected [" + std::to_string(n_cols) + ", " +
                std::to_string(n_rows) + "]; is it an adapter of this model?");
  }
  return *tensor;
}

MatrixView view_of(const gguf::TensorInfo& tensor, Range rows, Range cols) {
  const int64_t row_bytes = gguf::row_size_bytes(tensor.dtype, tensor.dims[0]);
  return {
      .dtype = tensor.dtype,
      .n_rows = rows.size(),
      .n_cols = cols.size(),
      .data = tensor.data + rows.begin * row_bytes + gguf::row_size_bytes(tensor.dtype, cols.begin),
      .row_stride_bytes = row_bytes,
      .is_mapped = true};
}

}  // namespace

gguf::GgufFile open_adapter(const std::string& path, std::string_view architecture) {
  gguf::GgufFile file = gguf::GgufFile::open(path);
  if (file.find_string("general.type").value_or("") != "adapter" ||
      file.find_string("adapter.type").value_or("") != "lora") {
    throw Error(path + ": not a LoRA adapter (general.type adapter, adapter.type lora)");
  }
  if (file.architecture() != architecture) {
    throw Error(path + ": an adapter of architecture \"" + std::string(file.architecture()) +
                "\", but the model is \"" + std::string(architecture) + "\"");
  }
  const auto alpha = file.find_float("adapter.lora.alpha");
  if (!alpha || !std::isfinite(*alpha)) {
    throw Error(path + ": adapter.lora.alpha: expected a finite number");
  }
  return file;
}

void LoraSet::add_to(MatrixView& view, const std::string& name, Shape shape, Range rows,
                     Range cols) {
  std::vector<LoraView> found;
  for (const auto& [file, factor] : adapters_) {
    const std::string a_name = name + ".lora_a";
    const std::string b_name = name + ".lora_b";
    const gguf::TensorInfo* any = file.find_tensor(a_name);
    if (any == nullptr) continue;
    const int64_t rank = any->dims[1];
    if (rank < 1 || rank > kMaxRank) {
      throw Error(path_of(file) + ": " + a_name + ": rank " + std::to_string(rank) +
                  ", expected 1 to " + std::to_string(kMaxRank));
    }
    const gguf::TensorInfo& a = find(file, a_name, shape.n_cols, rank);
    const gguf::TensorInfo& b = find(file, b_name, rank, shape.n_rows);
    const int64_t block = gguf::dtype_info(a.dtype).block_elems;
    if (cols.begin % block != 0 || (cols.end % block != 0 && cols.end != shape.n_cols)) {
      throw Error(path_of(file) + ": " + a_name +
                  ": its blocks can't be cut where the ranks cut the model, use an adapter in F16");
    }
    // An alpha of 0 stands for the rank.
    const double alpha = file.find_float("adapter.lora.alpha").value_or(0.0);
    found.push_back(
        {.a = view_of(a, {0, rank}, cols),
         .b = view_of(b, rows, {0, rank}),
         .scale =
             factor * static_cast<float>(alpha != 0.0 ? alpha / static_cast<double>(rank) : 1.0)});
    used_.insert(a_name);
    used_.insert(b_name);
  }
  if (found.empty()) return;
  views_.push_back(std::move(found));
  view.loras = views_.back().data();
  view.n_loras = static_cast<int>(views_.back().size());
}

void LoraSet::check_all_used() const {
  for (const OpenAdapter& adapter : adapters_) {
    for (const gguf::TensorInfo& tensor : adapter.file.tensors()) {
      if (used_.count(tensor.name) == 0) {
        throw Error(path_of(adapter.file) + ": " + std::string(tensor.name) +
                    ": the model has no matrix of this name to which an adapter can be applied");
      }
    }
  }
}

}  // namespace dsctl::engine
